package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/basic"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// labelsOf is the annotation of a Secret that gives labels to the client of one of its entries.
const labelsOf = v1alpha1.GroupName + "/labels."

// keys are the clients of all Secrets that the method names. Two Secrets may know a client by the same name (keys that overlap while they are
// changed), but a key belongs to one client.
func (c *compilation) keys(field string, m v1alpha1.APIKeyMethod) []apikey.Key {
	if len(m.SecretRefs) == 0 && m.SecretSelector == nil {
		c.wrong(field, "needs secretRefs or secretSelector, or both")
	}
	r := ring{compilation: c, known: map[[sha256.Size]byte]holder{}}
	for i, ref := range m.SecretRefs {
		field := fmt.Sprintf("%s.secretRefs[%d]", field, i)
		if s, p := c.lookup.Secret(field, ref); c.found(p) {
			r.add(field, s)
		}
	}
	if m.SecretSelector == nil {
		return r.keys
	}
	field += ".secretSelector"
	if len(m.SecretSelector.MatchLabels) == 0 && len(m.SecretSelector.MatchExpressions) == 0 {
		c.wrong(field, "must not be empty: every Secret of the namespace would hold keys")
		return nil
	}
	all, p := c.lookup.Secrets(field, *m.SecretSelector)
	c.found(p)
	for _, s := range all {
		r.add(field, s)
	}
	return r.keys
}

// ring collects the keys of several Secrets.
type ring struct {
	*compilation
	known map[[sha256.Size]byte]holder
	keys  []apikey.Key
}

// holder is whose a key is, and where it stands.
type holder struct {
	key   apikey.Key
	where string
}

// add takes the clients of one Secret, one for each entry.
func (r *ring) add(field string, s policy.Secret) {
	for _, entry := range slices.Sorted(maps.Keys(s.Data)) {
		where := fmt.Sprintf("Secret %s, entry %s", s.Name, entry)
		key := apikey.Key{Subject: entry, Value: snapshot.Sensitive{Name: s.Name, Key: entry, Data: trimNewline(s.Data[entry])}}
		sum, problem := keyHash(key.Value.Data)
		if problem != "" {
			r.wrongSecret(field, "%s: %s", where, problem)
			continue
		}
		if key.Labels, problem = labelsIn(s, entry); problem != "" {
			r.wrongSecret(field, "Secret %s, annotation %s%s: %s", s.Name, labelsOf, entry, problem)
			continue
		}
		switch other, twice := r.known[sum]; {
		case !twice:
			r.known[sum] = holder{key, where}
			r.keys = append(r.keys, key)
		case other.key.Subject != key.Subject || !slices.Equal(other.key.Labels, key.Labels):
			r.wrongSecret(field, "%s holds the same key as %s; a key belongs to one client", where, other.where)
		}
	}
}

// wrongSecret is a problem with what stands in a Secret.
func (c *compilation) wrongSecret(field, format string, args ...any) {
	c.problems = append(c.problems, policy.Problem{
		FieldPath: field, Reason: v1alpha1.PolicyReasonInvalidSecretRef, Reference: true, Message: fmt.Sprintf(format, args...),
	})
}

// keyHash is the SHA-256 of a key, whether it stands there itself or by its hash.
func keyHash(value []byte) (sum [sha256.Size]byte, problem string) {
	sum, err := apikey.Sum(value)
	switch {
	case errors.Is(err, apikey.ErrNoHash):
		return sum, "sha256: must be followed by 64 hexadecimal digits"
	case err != nil:
		return sum, "the key " + err.Error()
	}
	return sum, ""
}

// labelsIn are those of the Secret, and those of the entry in place of or beside them, by name.
func labelsIn(s policy.Secret, entry string) (out []apikey.Label, problem string) {
	labels := maps.Clone(s.Labels)
	if text, ok := s.Annotations[labelsOf+entry]; ok {
		if labels == nil {
			labels = map[string]string{}
		}
		for pair := range strings.SplitSeq(text, ",") {
			name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if !ok || name == "" || strings.TrimSpace(name) != name || strings.TrimSpace(value) != value {
				return nil, fmt.Sprintf("%.60q is no label; write them like tier=gold,team=a", pair)
			}
			labels[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, apikey.Label{Name: name, Value: labels[name]})
	}
	return out, ""
}

func trimNewline(b []byte) []byte {
	b = []byte(strings.TrimSuffix(string(b), "\n"))
	return []byte(strings.TrimSuffix(string(b), "\r"))
}

// passwordFiles are the entries in which users and passwords may stand: ingress-nginx' name, and Apache's.
var passwordFiles = []string{"auth", ".htpasswd"}

// bcryptHash is a hash, with its cost. $2x$ is that of an implementation with a bug.
var bcryptHash = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// users reads the file of users in a Secret. Messages name lines and users, never hashes.
func (c *compilation) users(field string, s policy.Secret) (out []basic.User) {
	var there []string
	for _, name := range passwordFiles {
		if _, ok := s.Data[name]; ok {
			there = append(there, name)
		}
	}
	if len(there) > 1 {
		c.wrongSecret(field, "Secret %s has both entries %s; which of them holds is not to be guessed", s.Name, strings.Join(there, " and "))
		return nil
	}
	entry := append(there, passwordFiles[0])[0]
	file, p := s.Entry(field, entry)
	if !c.found(p) {
		return nil
	}
	lines := map[string]int{} // of users
	number := 0
	for line := range strings.SplitSeq(string(file.Data), "\n") {
		number++
		line = strings.Trim(line, " \t\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, problem := user(line)
		if first, twice := lines[name]; problem == "" && twice {
			problem = fmt.Sprintf("the user stands in line %d already", first)
		}
		if problem != "" {
			c.wrongSecret(field, "Secret %s, entry %s, line %d: %s", s.Name, entry, number, problem)
			continue
		}
		lines[name] = number
		out = append(out, basic.User{Name: name, Hash: snapshot.Sensitive{Name: s.Name, Key: entry, Data: []byte(hash)}})
	}
	return out
}

// user reads a line of a file as Apache's htpasswd makes it.
func user(line string) (name, hash, problem string) {
	name, hash, ok := strings.Cut(line, ":")
	switch {
	case !ok:
		return "", "", "there is no colon; a line is user:hash, as htpasswd -nB makes it"
	case name == "":
		return "", "", "there is no user before the colon"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", "", "the user has control characters (RFC 7617 2)"
	}
	parts := bcryptHash.FindStringSubmatch(hash)
	if parts == nil {
		return "", "", "the password is not hashed by bcrypt; make the line with htpasswd -nB"
	}
	if cost, _ := strconv.Atoi(parts[1]); cost < minCost || cost > basic.MaxCost {
		return "", "", fmt.Sprintf("the cost of the hash is %d, and must be from %d to %d", cost, minCost, basic.MaxCost)
	}
	return name, hash, ""
}

const minCost = 4 // of bcrypt itself
