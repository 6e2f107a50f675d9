// Package certificate proves identities by the client certificate of the connection, which the listener has verified.
package certificate

// Config says which certificates are accepted beside what the listener demands.
type Config struct {
	// SubjectFrom is what of the certificate names the subject: "URI", "DNS", "Email" or "CommonName". "" takes the first that is there,
	// in this order.
	SubjectFrom string
}
