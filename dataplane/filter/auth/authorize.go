package auth

import (
	"net/netip"
	"slices"

	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// rules is an Authorize, ready.
type rules struct {
	list []rule
	deny bool // what fits no rule
}

// rule is a Rule, ready.
type rule struct {
	name    string
	deny    bool
	when    *expr.Program // nil: always
	sources []netip.Prefix
	methods []string
}

// denies asks the rules, and says which one denied.
func (p *policy) denies(ex *message.Exchange) (detail string, denied bool) {
	for i := range p.rules.list {
		r := &p.rules.list[i]
		if p.fits(r, ex) {
			if r.deny {
				return "rule " + r.name, true
			}
			return "", false
		}
	}
	if p.rules.deny {
		return "no rule allows it", true
	}
	return "", false
}

// fits reports whether the rule is for this request. What cannot be told fits a rule that denies, and none that allows.
func (p *policy) fits(r *rule, ex *message.Exchange) bool {
	if len(r.methods) > 0 && !slices.Contains(r.methods, ex.Request.Method) {
		return false
	}
	if len(r.sources) > 0 && !r.from(ex.ClientIP.Unmap().WithZone("")) {
		return false
	}
	if r.when == nil {
		return true
	}
	holds, err := r.when.Holds(ex)
	if err != nil {
		p.failed.Add(1)
		return r.deny
	}
	return holds
}

func (r *rule) from(client netip.Addr) bool {
	if !client.IsValid() {
		return r.deny
	}
	for _, s := range r.sources {
		if s.Contains(client) {
			return true
		}
	}
	return false
}
