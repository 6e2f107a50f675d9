package dataplane

import (
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/cors"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/redirect"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/rewrite"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Filters are all filters, in the order in which a request meets them; responses meet them in reverse. Where a line stands is the
// order: it is published, fixed, and the same for every rule.
//
// Outermost is what must see every answer and ask for nothing (CORS; a redirect to HTTPS must not ask for credentials in the clear),
// then who may come in and how often, innermost what changes the request that is forwarded.
var Filters = []snapshot.Filter{
	cors.Config{},
	redirect.Config{},
	auth.Config{},
	ratelimit.Config{},
	rewrite.Config{},
	headers.Config{},
}

// FilterOrder is the names of Filters: what the controllers sort a rule's filters by.
func FilterOrder() []string {
	names := make([]string, len(Filters))
	for i, f := range Filters {
		names[i] = f.FilterName()
	}
	return names
}
