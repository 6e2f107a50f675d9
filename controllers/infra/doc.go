// Package infra gives each Gateway a way in: a Service in our own namespace that selects our pods, and in the Gateway's namespace an alias
// of it. Which port of the pods each port of a Gateway has stands in a record, one ConfigMap of our namespace.
//
// The order is: the record names a pod port; every replica binds it and says so (see members); then it is published in the Service. So
// nothing is ever sent where nobody listens. What is published is not withdrawn, because some replica cannot bind it or because the
// listener has become invalid, and a pod port is given to another Gateway only ten minutes after nothing uses it any more.
//
// MakePlan decides, and is pure. Infra holds what it looks at, and on the leader carries it out: by server-side apply with our fields alone, so that
// what others put on a Service (node ports, annotations of a cloud) stays. It touches only what carries our owner, a ConfigMap that lives
// as long as the installation, and removes a Service only when the API server confirms that its Gateway is gone. What fails for one
// Gateway (a quota, an admission policy) is tried again for that one, and told in its status.
//
// Exposure host has none of this: listeners bind the ports of the spec on the nodes. The leader removes what the installation made before
// its exposure became host; the record stays, so that every port is the same again should it change back.
//
// Every replica remembers the record, also when somebody deletes it: the next leader writes it again, resting ports included. They are
// forgotten only if it is deleted while no replica runs at all. That is harmless: what was meant for a port that rests was sent to pods that
// are gone, with their addresses; and what Services publish is taken up from them.
//
// Limits: ports are TCP for now, though the record knows UDP. All Gateways together have 20,000 ports.
package infra
