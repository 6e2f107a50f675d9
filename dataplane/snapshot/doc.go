// Package snapshot is the input language of the data plane: what it must do, as plain immutable data. The data plane reads it, the
// controllers write it, and both print it: Snapshot.String is its text form, one match per line, used by goldens, by the debug page
// and in "what changed" log lines.
//
// It imports the standard library only. Fields are exported, nothing in it acts, nothing points to live things; nobody changes a
// snapshot after it was built. Certificates are a Secret, which prints and marshals as its hash, so that no golden or page can leak a
// key.
//
// The house's words: an object is what a user wrote; a graph is objects with their references resolved; a snapshot is this; a plan is
// a snapshot, alive (match trees, filter chains, pools); a backend is a group of endpoints; an endpoint is one address; an exchange is
// a request and its response; a filter acts on an exchange; a policy is a custom resource that attaches to something; a wire is an
// HTTP engine.
//
// Names are structs and are compared as structs: "a-b"/"c" and "a"/"b-c" never meet (threats 36).
package snapshot
