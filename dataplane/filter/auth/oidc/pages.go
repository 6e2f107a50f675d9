package oidc

import (
	"html"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// What pages say beside their title.
const (
	textUnknown = "It may have taken too long, or was begun in another browser. If it happens again, see that cookies are allowed for this site."
	textUsed    = "Each login can be used once. If you are logged in, go on; otherwise a new login begins."
	textAgain   = "Please begin again."
	textAway    = "The provider of logins does not answer as it should. Please try again in a moment."
	textLarge   = "The provider says more about you than fits into cookies. Whoever runs this site can ask it for fewer scopes."
	textLoop    = "You have just been logged in several times, but your browser did not keep it. See that cookies are allowed for this site, and that its clock is right."
)

// fail is a page that says what went wrong; detail is for the log.
func (g *gate) fail(ex *message.Exchange, status int, title, text, again, detail string) *message.Response {
	link := ""
	if again != "" {
		link = "Try again"
	}
	p := page(status, title, text, link, again, ex.ID)
	p.Detail = detail
	p.Reason = message.ReasonBadCredential
	if status >= 500 {
		p.Reason = message.ReasonAuthUnavailable
	}
	return p
}

// confirm asks whoever was sent to the logout by another site whether that was meant.
func confirm() *message.Response {
	return htmlPage(403, "Log out?", `<p>Another site has sent you here.</p><form method="post"><button>Log out</button></form>`)
}

// page is a page with a text, a link, and the id of the request, by which its log line is found.
func page(status int, title, text, link, to, id string) *message.Response {
	var b strings.Builder
	if text != "" {
		b.WriteString("<p>" + html.EscapeString(text) + "</p>")
	}
	if link != "" {
		b.WriteString(`<p><a href="` + html.EscapeString(to) + `">` + html.EscapeString(link) + "</a></p>")
	}
	if id != "" && status >= 400 {
		b.WriteString("<p><small>Request " + html.EscapeString(id) + "</small></p>")
	}
	return htmlPage(status, title, b.String())
}

func htmlPage(status int, title, body string) *message.Response {
	title = html.EscapeString(title)
	r := message.Respond(message.OriginFilter, status, "text/html; charset=utf-8", `<!doctype html><html lang="en"><head><meta charset="utf-8">`+
		`<meta name="viewport" content="width=device-width"><title>`+title+`</title></head>`+
		`<body style="font:16px/1.5 sans-serif;max-width:36em;margin:4em auto;padding:0 1em"><h1>`+title+`</h1>`+body+"</body></html>\n")
	r.Header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	private(r, "same-origin") // with no-referrer the form of a page of ours would come from the origin "null"
	return r
}

// redirect sends a browser elsewhere.
func redirect(status int, to string) *message.Response {
	r := message.Respond(message.OriginFilter, status, "", "")
	r.Header.Set("Location", to)
	private(r, "no-referrer")
	return r
}

// private: no cache keeps it, and other sites that it leads to do not learn the code or the state in its address.
func private(r *message.Response, referrer string) {
	r.Header.Set("Cache-Control", "no-store")
	r.Header.Set("Referrer-Policy", referrer)
	r.Header.Set("X-Content-Type-Options", "nosniff")
}
