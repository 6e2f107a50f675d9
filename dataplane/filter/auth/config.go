// Package auth decides who may come in: it proves who a client is by the methods of each policy, and asks each policy's rules.
package auth

import (
	"net/netip"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/basic"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/certificate"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/jwt"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/oidc"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config is every policy that holds for a rule, or for what matches none, outermost first. Each of them must let a request in.
type Config struct {
	Policies []Policy
}

// Policy is one AuthPolicy.
type Policy struct {
	Name    snapshot.Name
	UID     string
	Shadow  bool // what would have been refused is counted and logged, and passes
	Require Require
	Methods []Method // none: nobody has to prove anything, the rules alone decide
	// Authorize decides once the methods are content.
	Authorize Authorize
	Forward   Forward
}

// Require is how many of the methods must be content.
type Require string

const (
	Any Require = "Any" // one of them
	All Require = "All" // each of them
	// Optional: one of them if anything is presented; without any credential the request is anonymous, and the rules decide; it
	// is answered as under Any when they deny.
	Optional Require = "Optional"
)

// Method is one way to prove an identity; one of the pointers is set.
type Method struct {
	Name        string // unique in its policy
	JWT         *jwt.Config
	APIKey      *apikey.Config
	Basic       *basic.Config
	OIDC        *oidc.Config
	Certificate *certificate.Config
	External    *external.Config

	text string // what Settle has found; "" it was not called
}

// Authorize is rules in order: the first that fits decides.
type Authorize struct {
	Rules []Rule
	Deny  bool // what fits no rule is refused; false: it passes
}

// Rule fits a request that fits all that is set in it.
type Rule struct {
	Name    string
	Deny    bool   // refuse; false: let in
	When    string // CEL, kind Bool; "" any. An error of it fits a rule that denies, and none that lets in
	Sources []netip.Prefix
	Methods []string
}

// Forward is what the backend learns.
type Forward struct {
	Headers []Header // set anew on each request; what a client sent under the names is dropped in every spelling
	// KeepCredential forwards what was presented; false: it is stripped.
	KeepCredential bool
}

// Header is a field whose value is CEL of kind String over the exchange. Where the value is "" there is no field.
type Header struct{ Name, Value string }
