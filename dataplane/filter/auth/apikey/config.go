// Package apikey proves identities by keys that stand in Secrets.
package apikey

import (
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config says which keys are accepted, and where they are looked for.
type Config struct {
	From method.Places // where keys stand; at least one
	Keys []Key
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
