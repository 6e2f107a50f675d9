// Package apikey proves identities by keys that stand in Secrets.
package apikey

import "github.com/gatehouse-dev/gatehouse/dataplane/snapshot"

// Config says which keys are accepted, and where they are looked for.
type Config struct {
	From []Source // all of them are looked at; at least one
	Keys []Key
}

// Source is a place where a key may stand; one of the names is set.
type Source struct {
	Header string
	Prefix string // what stands before the key in the header, "Bearer "; "" nothing
	Query  string
	Cookie string
}

// Key is one client's key.
type Key struct {
	Subject string
	Labels  []Label
	// Value is the key itself, or "sha256:" and the hexadecimal SHA-256 of it.
	Value snapshot.Sensitive
}

// Label is a word about a subject.
type Label struct{ Name, Value string }
