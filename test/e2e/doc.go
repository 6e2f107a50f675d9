// Package e2e holds Gatehouse, installed by helm into a real Kubernetes, to what its users notice: under a constant load whose every answer
// is checked, backends roll, routes are edited, certificates rotate, replicas restart or are killed, the API server goes away, and no request fails;
// and who may not come in stays out, at each replica, while policies, keys, tokens and authorities change. The services of others that Gatehouse
// calls (an issuer, an OpenID provider, ext_authz) are a pod of test/e2e/provider; the store of shared limits is a redis-server at the node.
//
// Its tests have the build tag e2e and need Linux and root: hack/e2e.sh (make e2e) brings the cluster up and installs the chart, and then runs
// them inside the cluster's network. They run one after the other, as they share the one release and the one load balancer; each cleans up after itself.
//
// What it can't show: how a cloud's balancer or a second node behaves, and IPv6; the cluster has one node and its balancer is kube-proxy.
package e2e
