package basic

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// MaxCost is the highest cost of a hash that is accepted: about a second of one core for each attempt to log in.
const MaxCost = 14

// Check reports what is wrong, in words for whoever wrote the Secret.
func (c Config) Check() error {
	if !message.ValidValue(c.Realm) {
		return errors.New("the realm has a control character, or a space at an end")
	}
	seen := map[string]bool{}
	for _, u := range c.Users {
		if err := u.check(); err != nil {
			return err
		}
		if seen[u.Name] {
			return fmt.Errorf("user %q stands twice: nobody could say which password holds", u.Name)
		}
		seen[u.Name] = true
	}
	return nil
}

func (u User) check() error {
	if u.Name == "" || strings.ContainsRune(u.Name, ':') || control(u.Name) {
		return fmt.Errorf("%q cannot be a user's name: it is empty, or has a colon or a control character (RFC 7617 2)", u.Name)
	}
	cost, err := u.cost()
	switch {
	case err != nil:
		return fmt.Errorf("the hash of user %q is not bcrypt; make it with htpasswd -B", u.Name)
	case cost > MaxCost:
		return fmt.Errorf("the hash of user %q has cost %d; %d is the most", u.Name, cost, MaxCost)
	}
	return nil
}

var errNotBcrypt = errors.New("not a bcrypt hash")

// cost of a hash. $2x$ marks those of an implementation with a bug, which is not repeated here.
func (u User) cost() (int, error) {
	h := string(u.Hash.Data)
	if len(h) != 60 || !strings.HasPrefix(h, "$2a$") && !strings.HasPrefix(h, "$2b$") && !strings.HasPrefix(h, "$2y$") {
		return 0, errNotBcrypt
	}
	if strings.Trim(h[7:], "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" {
		return 0, errNotBcrypt
	}
	return bcrypt.Cost([]byte(h))
}

// Build makes the method. The error is Check's.
func (c Config) Build(env filter.Env) (method.Method, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	p := &passwords{
		users: make(map[string]*user, len(c.Users)), challenge: challenge(c.Realm), clock: env.Clock,
		house: sharedHouse(env), compare: bcrypt.CompareHashAndPassword,
	}
	least := MaxCost
	for _, u := range c.Users {
		cost, _ := u.cost()
		p.cost, least = max(p.cost, cost), min(least, cost)
		p.users[u.Name] = &user{hash: u.Hash.Data, cost: cost, identity: &message.Identity{Subject: u.Name}}
	}
	if len(c.Users) == 0 {
		p.cost = bcrypt.DefaultCost
	}
	p.nobody = &user{hash: idle(p.cost), cost: p.cost}
	for cost := least; cost < p.cost; cost++ {
		p.padding[cost] = idle(cost)
	}
	return p, nil
}

// idle is a hash of that cost, of no password.
func idle(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 53))
}

func challenge(realm string) string {
	if realm == "" {
		realm = "restricted"
	}
	return `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `", charset="UTF-8"`
}

// passwords is the method.
type passwords struct {
	users     map[string]*user
	nobody    *user // whose hash is compared for users that do not exist
	cost      int   // the highest
	padding   [MaxCost][]byte
	challenge string
	clock     func() time.Time
	house     *house
	compare   func(hash, password []byte) error
}

type user struct {
	hash     []byte
	cost     int
	identity *message.Identity // nil: nobody
}

// Authenticate decides on the one Authorization field that there may be.
func (p *passwords) Authenticate(ex *message.Exchange) method.Result {
	value, n := place.Find(&ex.Request)
	switch {
	case n == 0:
		return method.Result{Challenge: p.challenge}
	case n > 1:
		return p.refused("several Authorization fields")
	}
	var room [maxCredential]byte
	c, ok := parse(room[:0], value)
	if !ok {
		return p.refused("malformed")
	}
	u := p.users[string(c.user())]
	if u == nil {
		u = p.nobody
	}
	key := p.house.key(u.hash, c.text)
	now := p.clock()
	if p.house.verified(key, now) {
		return method.Result{Outcome: method.Accepted, Identity: u.identity}
	}
	return p.check(ex, u, key, now, bytes.Clone(c.password()))
}

// check is Authenticate for a password that is not remembered.
func (p *passwords) check(ex *message.Exchange, u *user, key entry, now time.Time, password []byte) method.Result {
	if !p.house.enter(ex.Context()) {
		return method.Result{Outcome: method.Unavailable, Detail: "too many passwords are being checked"}
	}
	defer p.house.leave()
	if p.house.verified(key, now) { // by one who was before us in the queue
		return method.Result{Outcome: method.Accepted, Identity: u.identity}
	}
	if !p.matches(u, password) {
		return p.refused("wrong user or password")
	}
	p.house.remember(key, now)
	return method.Result{Outcome: method.Accepted, Identity: u.identity}
}

// matches compares with the same work for everybody: a user whose hash is cheaper than others, and one that does not exist, takes as
// long as the dearest (threats 30). Comparing at cost c takes 2^c rounds, and 2^c + 2^c + 2^(c+1) + … + 2^(C−1) = 2^C.
func (p *passwords) matches(u *user, password []byte) bool {
	err := p.compare(u.hash, password)
	for cost := u.cost; cost < p.cost; cost++ {
		p.compare(p.padding[cost], password)
	}
	return err == nil && u.identity != nil
}

func (p *passwords) refused(why string) method.Result {
	return method.Result{Outcome: method.Refused, Challenge: p.challenge, Detail: why}
}

// Strip takes the credential out.
func (p *passwords) Strip(r *message.Request) { place.Strip(r) }

// String is such as `basic(realm "staff" 2 users #1c3f…)`: the hash is of all names and hashes of passwords.
func (c Config) String() string {
	h := sha256.New()
	for _, u := range c.Users {
		fmt.Fprintf(h, "%d:%s%d:%s", len(u.Name), u.Name, len(u.Hash.Data), u.Hash.Data)
	}
	return "basic(realm " + strconv.Quote(c.Realm) + " " + strconv.Itoa(len(c.Users)) + " users #" + hex.EncodeToString(h.Sum(nil)[:16]) + ")"
}
