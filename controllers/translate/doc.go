// Package translate turns objects into what the data plane must do and what users get told. Build resolves the objects into one
// graph, whose nodes carry their problems; the snapshot and the statuses are two views of it, so they cannot disagree.
//
// It is pure: no clock, no network, no file, no global. The same function serves the cluster, the clusterless mode, `check` and the
// goldens in testdata. What comes after a snapshot was applied (what could be bound, which addresses there are) is Facts, plain data
// too, so that Programmed is decided here and nowhere else.
//
// An object in error hurts itself only: a rule that cannot be served answers 500, and its route's status says what to change. What
// concerns security and is not built yet is refused by a condition that names the field, never ignored. A listener that cannot serve
// keeps its hostname closed, so that its requests do not fall to a less specific neighbour.
//
// Limits: no ListenerSets, no TLS passthrough, no TCP and UDP; endpoints are not seen here (they take the short way). Of the data
// plane it knows the snapshot, the filters' Configs, and of message the normalisation of paths, the names of header fields and the
// words for failures, so that each of these has one owner.
package translate
