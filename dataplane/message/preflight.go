package message

// Preflight reports whether the request is a CORS preflight (Fetch standard, "CORS-preflight request"), and the method of the request
// that will follow it: a route that names a method is meant for that one.
func (r *Request) Preflight() (method string, ok bool) {
	if r.Method != "OPTIONS" || !r.Header.Has("Origin") {
		return "", false
	}
	method, ok = r.Header.Only("Access-Control-Request-Method")
	return method, ok && method != ""
}
