// Package method is what all ways to prove an identity have in common. Each is a room of its own beside this one, and the filter
// (dataplane/filter/auth) asks them in the order in which a policy names them.
package method

import "github.com/gatehouse-dev/gatehouse/dataplane/message"

// Method is one way to prove an identity, alive. It is used by many exchanges at once.
type Method interface {
	// Authenticate looks at what the request presents. It may call out, within a time limit of its own and ex.Context(). It changes
	// nothing of the exchange; what it wants changed is in the Result.
	Authenticate(ex *message.Exchange) Result
	// Strip takes this method's credential out of the request, in every place where Authenticate looks for it, so that backends never
	// see it.
	Strip(r *message.Request)
}

// Outcome is what a method says.
type Outcome uint8

const (
	// Absent: the request presents nothing of this kind.
	Absent Outcome = iota
	// Accepted: Identity is proven. A method that only lets in (an external service that names nobody) leaves Identity nil.
	Accepted
	// Refused: what is presented is not accepted.
	Refused
	// Unavailable: what is presented cannot be judged now: no keys of the issuer, no answer of the service.
	Unavailable
	// Answered: the request was for the method itself (the return from a login, a logout). Response is the answer, whatever other
	// methods say.
	Answered
)

// Result is what became of one Authenticate.
type Result struct {
	Outcome  Outcome
	Identity *message.Identity // of Accepted; Method and Policy are set by the filter
	// Challenge is a member of WWW-Authenticate (RFC 9110 11.6.1), for Absent and Refused: "" when there is none for this kind.
	Challenge string
	// Response is the answer of Answered. With Absent or Refused it is what the client gets if nobody else lets the request in (a
	// redirect to a login, the denial of an external service).
	Response *message.Response
	// Detail is for the log: why. It never holds a credential.
	Detail string
	// Set are fields for the request that is forwarded, of Accepted: they replace what the client sent under the names, in every spelling.
	Set []Field
	// OnRequest changes the request that is forwarded, of Accepted, behind Strip and Set: what an external service wants removed, added, or
	// set in the query. Of a policy in shadow it does not run. Nil: nothing.
	OnRequest func(*message.Request)
	// OnResponse changes the answer on its way out, of Accepted: cookies that were renewed, say. Nil: nothing.
	OnResponse func(*message.Response)
}

// Field is a header field.
type Field struct{ Name, Value string }
