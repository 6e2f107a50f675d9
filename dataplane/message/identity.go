package message

import "time"

// Identity is who the client has proven to be. It is immutable and may be shared by many exchanges.
type Identity struct {
	Subject string // who: the subject of a token, the name of a key, a user, a certificate's name; never "" once proven
	Method  string // the name of the method, in the policy that asked
	Policy  string // that policy, as namespace/name
	// Claims are what was said about the subject, as encoding/json decodes them (numbers as json.Number or float64). Read only.
	Claims map[string]any
	// Labels are what the operator says about the subject: those of a key's Secret, say. Read only.
	Labels map[string]string
	// Expires is when the proof ends: a stream that outlives it is closed. The zero time: never.
	Expires time.Time
}
