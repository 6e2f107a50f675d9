// Package basic proves identities by user and password (RFC 7617).
package basic

import "github.com/gatehouse-dev/gatehouse/dataplane/snapshot"

// Config says who is accepted.
type Config struct {
	Realm string // of the challenge
	Users []User
}

// User is a line of an htpasswd file.
type User struct {
	Name string
	Hash snapshot.Sensitive // bcrypt ($2a$, $2b$, $2y$)
}
