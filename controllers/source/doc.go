// Package source reads Kubernetes objects from YAML files, for running and checking without a cluster.
//
// A file gets what the API server would have done with it: strict field names, defaults, validation, list types and CEL
// rules. Kinds that are CRDs (the Gateway API's standard channel and our own) go through the API server's own code with
// the schemas of their CRDs, which are generated into schemas/ and embedded; the few core kinds go through a small table
// of ours. So weight 1, path "/" and `allowedRoutes: Same` are written in one place, the CRDs, and a file that passes
// here passes `kubectl apply`. Each problem has the file and line of the field that it speaks of.
//
// # What an object from a file has instead of a server's bookkeeping
//
// Its UID is a hash of kind, namespace and name; its generation is a hash of its content without status; its
// creationTimestamp grows with its place in the files (the order of the paths as given, then the file's path, then the
// place in the file), so that "the oldest wins" means "the first in the files wins". The namespace is "default" where
// none is written. For a namespace that is used, but not declared, a Namespace with the label that Kubernetes gives it
// is implied.
//
// # Reloading
//
// A file is taken as a whole: as long as it has a problem, the objects of its last version without one stay. An object
// that has not changed is the same pointer in each Result (unless its age has: a file came or went before it), so that
// a reader can tell what changed by comparing pointers. Nobody may change an object of a Result. Only what was edited is
// read again: of a file that changed, the documents that did.
//
// # Limits
//
// Where files differ from a cluster on purpose: the first of two objects with one name wins (kubectl apply: the last);
// `status` and what only the server may set are dropped; endpoints may be loopback addresses. Of the core kinds only
// what concerns Gatehouse is checked (no node ports, no IP families, no session affinity times). Folders are read
// recursively for *.yaml and *.yml; names that begin with a dot are skipped, and symbolic links to folders are not
// followed below a given path, as in kubectl.
package source
