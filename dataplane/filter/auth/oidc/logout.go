package oidc

import (
	"context"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

const maxHint = 4000 // bytes of an id_token_hint: it goes in a URL

// logout ends the session here, and at the provider if it announces how.
func (g *gate) logout(ex *message.Exchange, v visit) method.Result {
	r := &ex.Request
	switch {
	case r.Method != "GET" && r.Method != "POST":
		page := g.fail(ex, 405, "This is not a page", "Log out by GET or POST.", "", "logout by "+r.Method)
		page.Header.Set("Allow", "GET, POST")
		return answered(page)
	case !sameSite(r, v.origin) || lookAhead(r):
		return answered(confirm())
	}
	old := v.parts(&r.Header)
	s, _ := g.session(v, &old)
	res := g.leave(ex, v, s)
	v.clear(&res.Header, old)
	for name := range cookies(&r.Header) {
		if name == v.marker() {
			res.Header.Add("Set-Cookie", v.remove(name))
		}
	}
	return answered(res)
}

// leave is where a browser goes that has logged out.
func (g *gate) leave(ex *message.Exchange, v visit, s *session) *message.Response {
	after := g.config.AfterLogout
	if strings.HasPrefix(after, "/") {
		after = v.origin + after
	}
	if s != nil {
		g.memory.ended.set(s.id, struct{}{})
		ctx, cancel := context.WithTimeout(ex.Context(), patience)
		defer cancel()
		// Without the provider the session ends here all the same.
		if m, err := g.provider.metadata(ctx); err == nil && m.endSession != "" {
			hint := s.token()
			if len(hint) > maxHint {
				hint = ""
			}
			return redirect(303, m.logoutURL(g.config.ClientID, hint, after))
		}
	}
	if after != "" {
		return redirect(303, after)
	}
	return page(200, "You are logged out", "", "Log in again", v.origin+"/", ex.ID)
}

// sameSite reports whether a request comes from a page of the same site, or from nobody's: another site must not log people out. GET is
// allowed, so that a logout can be a link. Where a browser does not say (Fetch Metadata is for secure contexts only), Origin and Referer
// must be ours if they are there.
func sameSite(r *message.Request, own string) bool {
	if site := r.Header.Values("Sec-Fetch-Site"); len(site) > 0 {
		return len(site) == 1 && (site[0] == "same-origin" || site[0] == "same-site" || site[0] == "none")
	}
	for _, name := range []string{"Origin", "Referer"} {
		for _, from := range r.Header.Values(name) {
			if at, err := originOf(from); err != nil || at != own {
				return false
			}
		}
	}
	return true
}
