#!/usr/bin/env bash
# node.sh STATE BIN CGROUP PROXY   is the first process of a cluster's namespaces: it starts all the programs and then reaps.
#
# Only cluster.sh calls it, in net, pid and mount namespaces of their own. So ports, rules of iptables and nftables, bridges
# and mounts stay inside, and all of it goes when this process is killed. What it says is in STATE/logs/node.log.
#
# Each program is a small script in STATE/programs that can be run again: that is how cluster.sh starts one anew.
set -euo pipefail

# The number by which those outside know us, and the time when we began: /proc is still theirs.
read -r stat </proc/self/stat
echo "$stat" >"$1/init"

state=$1 bin=$2 cgroup=$3 proxy=$4
node=node bridge=cni0
address=10.244.0.1 pods=10.244.0.0/24
services=10.96.0.0/16 api=10.96.0.1
balanced=10.97.0.0/24
runtime=/run/containerd/containerd.sock
export PATH=$bin:$state/bin:$PATH

began=${EPOCHREALTIME/[.,]/} # microseconds
say() {
	local tenths=$(((${EPOCHREALTIME/[.,]/} - began) / 100000))
	printf '%3d.%d s  %s\n' $((tenths / 10)) $((tenths % 10)) "$*"
}

# await SECONDS WHAT COMMAND... waits until the command succeeds.
await() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $end ]; then
			echo "not in time: $what"
			"$@" || exit 1
		fi
		sleep 0.1
	done
	say "$what"
}

# program NAME COMMAND... writes the script and runs it.
program() {
	local name=$1
	shift
	printf '#!/bin/bash\nexport PATH=%q\necho $$ >%q\nexec%s >>%q 2>&1 </dev/null\n' \
		"$PATH" "$state/pids/$name" "$(printf ' %q' "$@")" "$state/logs/$name.log" >"$state/programs/$name"
	chmod +x "$state/programs/$name"
	setsid "$state/programs/$name" &
}

# private covers what the programs write to outside of STATE, whatever they are told, so that the machine keeps its own.
private() {
	mount --make-rshared / # and a slave of what is outside: nothing gets out
	mount -t proc proc /proc
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/{netns,lock,state,lib,work}
	mount --bind "$state" /run/state
	mount -t tmpfs tmpfs /var/log
	mount -t overlay -o lowerdir=/var/lib,upperdir=/run/lib,workdir=/run/work overlay /var/lib # of kubelet, cni
	mount --bind /run/state "$state" # should it be below one of those

	# The kubelet sets these machine-wide unless they read already as it wants: it is shown stand-ins.
	local setting stand_in
	for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
		stand_in=/run/$(basename "${setting%=*}")
		echo "${setting#*=}" >"$stand_in"
		mount --bind "$stand_in" "/proc/sys/${setting%=*}"
	done
}

# network makes the bridge that carries the node's address, the advertised one of the API server, and the pods.
network() {
	ip link set lo up
	ip link add $bridge type bridge
	ip address add $address/24 dev $bridge
	ip link set $bridge up
	# Without any route to them, connections to Services would be refused before kube-proxy's rules see them.
	ip route add default dev $bridge
	echo 1 >/proc/sys/net/ipv4/ip_forward
	echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
	local bridged=/proc/sys/net/bridge/bridge-nf-call-iptables
	if [ -e $bridged ]; then echo 1 >$bridged; fi
}

# sign NAME SUBJECT EXTENSIONS makes a key and a certificate.
sign() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -days 30 -out "$1.crt" -extfile <(echo "$3") 2>/dev/null
}

# identity FILE USER GROUP gives a program its own token, in a kubeconfig. (It is JSON, which YAML contains.)
identity() {
	local token
	token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	echo "$token,$2,$2,\"$3\"" >>tokens.csv
	cat >"$state/$1" <<-JSON
		{"apiVersion": "v1", "kind": "Config", "current-context": "gatehouse",
		"clusters": [{"name": "gatehouse", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": "$(base64 -w0 ca.crt)"}}],
		"users": [{"name": "$2", "user": {"token": "$token"}}],
		"contexts": [{"name": "gatehouse", "context": {"cluster": "gatehouse", "user": "$2"}}]}
	JSON
}

identities() {
	cd "$state/pki"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=gatehouse-kube-ca \
		-addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
	sign serving /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,IP:$address,IP:$api,DNS:localhost,DNS:kubernetes.default.svc
		extendedKeyUsage=serverAuth"
	sign kubelet-client /O=system:masters/CN=kube-apiserver extendedKeyUsage=clientAuth
	openssl genrsa -out service-accounts.key 2048 2>/dev/null
	identity kubeconfig admin system:masters
	identity controller-manager.kubeconfig system:kube-controller-manager ""
	identity scheduler.kubeconfig system:kube-scheduler ""
	identity kubelet.kubeconfig system:node:$node system:nodes
	identity proxy.kubeconfig system:kube-proxy ""
	identity balancer.kubeconfig balancer system:masters
	cd /
}

control_plane() {
	local pki=$state/pki
	program etcd etcd --name one --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls unix:///run/etcd.sock --advertise-client-urls unix:///run/etcd.sock \
		--listen-peer-urls unix:///run/peer.sock --initial-advertise-peer-urls unix:///run/peer.sock --initial-cluster one=unix:///run/peer.sock
	# The node's name doesn't resolve: logs and exec go to its address.
	program kube-apiserver kube-apiserver --etcd-servers unix:///run/etcd.sock --secure-port 6443 --advertise-address $address \
		--tls-cert-file "$pki/serving.crt" --tls-private-key-file "$pki/serving.key" \
		--client-ca-file "$pki/ca.crt" --token-auth-file "$pki/tokens.csv" --authorization-mode Node,RBAC \
		--service-cluster-ip-range $services --service-account-issuer https://kubernetes.default.svc \
		--service-account-key-file "$pki/service-accounts.key" --service-account-signing-key-file "$pki/service-accounts.key" \
		--kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
		--kubelet-preferred-address-types InternalIP --endpoint-reconciler-type lease --allow-privileged --profiling=false
	# It hears of the node late when the API server comes back after 30 s, and by default it would take all pods from their Services after 50.
	program kube-controller-manager kube-controller-manager --kubeconfig "$state/controller-manager.kubeconfig" --leader-elect=false \
		--service-account-private-key-file "$pki/service-accounts.key" --root-ca-file "$pki/ca.crt" \
		--cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
		--use-service-account-credentials --service-cluster-ip-range $services --cert-dir "$state/controller-manager" \
		--node-monitor-grace-period 3m \
		--flex-volume-plugin-dir "$state/volume-plugins" --kube-api-qps 200 --kube-api-burst 400 # by default its start takes 4 s more
	program kube-scheduler kube-scheduler --kubeconfig "$state/scheduler.kubeconfig" --leader-elect=false --cert-dir "$state/scheduler"
	program balancer balancer -kubeconfig "$state/balancer.kubeconfig" -pool $balanced
}

container_runtime() {
	local plugins=/usr/lib/cni snapshotter=overlayfs
	[ -x $plugins/bridge ] || plugins=/opt/cni/bin
	if [ "$(stat -f -c %T "$state")" = overlayfs ]; then snapshotter=native; fi # overlays don't stack
	mkdir -p "$state/cni"
	cat >"$state/cni/bridge.conflist" <<-JSON
		{"cniVersion": "1.0.0", "name": "pods", "plugins": [
		  {"type": "bridge", "bridge": "$bridge", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "/run/cni",
		    "ranges": [[{"subnet": "$pods", "rangeStart": "10.244.0.10", "gateway": "$address"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	JSON
	# restrict_oom_score_adj: root without CAP_SYS_RESOURCE may not lower it, and runc would die of that.
	cat >"$state/containerd.toml" <<-TOML
		version = 2
		root = "$state/containerd"
		state = "/run/containerd/state"
		[grpc]
		  address = "$runtime"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "/run/containerd/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "localhost/pause:dev"
		  restrict_oom_score_adj = true
		  enable_unprivileged_ports = true
		[plugins."io.containerd.grpc.v1.cri".containerd]
		  snapshotter = "$snapshotter"
		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		  runtime_type = "io.containerd.runc.v2"
		[plugins."io.containerd.grpc.v1.cri".cni]
		  bin_dir = "$plugins"
		  conf_dir = "$state/cni"
	TOML
	echo $snapshotter >"$state/snapshotter"
	program containerd containerd -c "$state/containerd.toml"
}

# cgroups makes the root of the pods' cgroups: kubelets that share /kubepods would remove each other's pods.
cgroups() {
	local hierarchy file
	for hierarchy in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
		case $hierarchy in */unified/) continue ;; esac
		grep -q " $(realpath "$hierarchy") cgroup" /proc/mounts || continue
		mkdir -p "$hierarchy$cgroup"
		for file in cpuset.cpus cpuset.mems; do # v1 doesn't inherit them
			if [ -e "$hierarchy$file" ]; then cat "$hierarchy$file" >"$hierarchy$cgroup/$file"; fi
		done
	done
}

kubelet() {
	cgroups
	# Nobody answers DNS at that address, but pods get the search path of a cluster.
	echo "nameserver $address" >"$state/resolv.conf"
	cat >"$state/kubelet.yaml" <<-YAML
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		containerRuntimeEndpoint: unix://$runtime
		cgroupDriver: cgroupfs
		cgroupRoot: /$cgroup
		failCgroupV1: false
		failSwapOn: false
		makeIPTablesUtilChains: false
		authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $state/pki/ca.crt}}
		authorization: {mode: AlwaysAllow}
		clusterDNS: [$address]
		clusterDomain: cluster.local
		resolvConf: $state/resolv.conf
		evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
		imageGCHighThresholdPercent: 100
		maxPods: 200
		podLogsDir: $state/logs/pods
		volumePluginDir: $state/volume-plugins
	YAML
	program kubelet kubelet --config "$state/kubelet.yaml" --kubeconfig "$state/kubelet.kubeconfig" \
		--root-dir "$state/kubelet" --cert-dir "$state/kubelet/pki" --hostname-override $node --node-ip $address
}

proxy() {
	cat >"$state/proxy.yaml" <<-YAML
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: $proxy
		clientConnection: {kubeconfig: $state/proxy.kubeconfig}
		hostnameOverride: $node
		clusterCIDR: $pods
		conntrack: {maxPerCore: 0}
	YAML
	program kube-proxy kube-proxy --config "$state/proxy.yaml"
}

node_ready() { kubectl get node $node -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }

# proxy_ready asks kube-proxy's /healthz, without needing curl.
proxy_ready() { (exec 3<>/dev/tcp/127.0.0.1/10256 && printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3 && grep -q '^HTTP/1.* 200' <&3); }

export KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/kubectl-cache
private
network
(umask 077 && identities)
control_plane
container_runtime
await 30 "containerd answers" ctr version
await 60 "the API server is ready" kubectl get --raw /readyz
kubelet
proxy
await 60 "the node is ready" node_ready
await 60 "pods can be created" kubectl get serviceaccount default
await 20 "Services are served" proxy_ready
touch "$state/ready"

# Bash reaps all that is left to it, and only when it waits.
while :; do sleep 3600 & wait $! || true; done
