package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

func addresses(servers ...*storetest.Server) (all []string) {
	for _, s := range servers {
		all = append(all, s.Address())
	}
	return all
}

func TestInAClusterEachGroupHasItsPlaceAndACallMayTouchMany(t *testing.T) {
	t.Parallel()
	nodes := storetest.Cluster(t, 3)
	s := connected(t, store.Options{Addresses: addresses(nodes[0]), Mode: store.Cluster})
	for i := range 30 {
		admits(t, s, 2, bucket(s.Counter(fmt.Sprint("policy", i), "a"), 2))
	}
	for _, n := range nodes {
		if n.Do("DBSIZE") == ":0" {
			t.Error("a node has nothing")
		}
	}
	small, large, slots := bucket(s.Counter("one", "small"), 2), bucket(s.Counter("two", "large"), 6), places(s.Counter("three", "at once"), 4)
	admits(t, s, 2, small, large, slots)
	// What the others took while the small one refused comes back.
	storetest.Eventually(t, 5*time.Second, "it is given back", func() bool {
		free := large
		free.Cost = 0
		_, got := ask(t, s, free)
		return got[0].Debt <= 2*large.Cost && under(t, s, slots.Counter) == 2
	})
	admits(t, s, 4, large)
}

func TestANodeOfAClusterThatComesBackIsAskedAgain(t *testing.T) {
	t.Parallel()
	nodes := storetest.Cluster(t, 3)
	s := connected(t, store.Options{Addresses: addresses(nodes...), Mode: store.Cluster})
	ask1 := func(group int) error {
		c := s.NewCall()
		defer s.Free(c)
		c.Claims = append(c.Claims, bucket(s.Counter(fmt.Sprint("policy", group), "a"), 1e6))
		return s.Ask(c)
	}
	nodes[1].Kill()
	storetest.Eventually(t, 5*time.Second, "somebody misses it", func() bool {
		for i := range 30 {
			if ask1(i) != nil {
				return true
			}
		}
		return false
	})
	nodes[1].Start()
	storetest.Eventually(t, 30*time.Second, "all groups are served", func() bool {
		for i := range 30 {
			if ask1(i) != nil {
				return false
			}
		}
		return true
	})
}

func TestSentinelsSayWhoThePrimaryIs(t *testing.T) {
	t.Parallel()
	w := storetest.Sentinels(t)
	s := connected(t, store.Options{Addresses: addresses(w.Sentinels...), Mode: store.Sentinel, Primary: storetest.PrimaryName})
	c := bucket(s.Counter("p", "a"), 100)
	admits(t, s, 1, bucket(s.Counter("p", "b"), 1))
	for range 60 {
		ask(t, s, c)
	}
	storetest.Eventually(t, 5*time.Second, "the replica has it", func() bool { return w.Replica.Do("DBSIZE") == w.Primary.Do("DBSIZE") })
	w.Primary.Kill()
	storetest.Eventually(t, 30*time.Second, "the other one decides, and knows what was used", func() bool {
		call := s.NewCall()
		defer s.Free(call)
		free := c
		free.Cost = 0
		call.Claims = append(call.Claims, free)
		return s.Ask(call) == nil && call.Claims[0].Debt > 59*c.Cost && w.Replica.Says("ROLE") == "*3"
	})
	admits(t, s, 40, c)
}

// rights are those that README.md names.
const rights = "+hello +auth +client|setname +ping +eval +evalsha +time +get +set +del +zadd +zrem +zcard +zrangebyscore +zremrangebyscore +pexpire"

func TestTheRightsThatTheReadmeNamesAreEnoughAndAPasswordThatWasChangedIsReadAgain(t *testing.T) {
	if text, err := os.ReadFile("README.md"); err != nil || !strings.Contains(string(text), rights) {
		t.Error("README.md names other rights", err)
	}
	server := storetest.Start(t)
	server.Do(append([]string{"ACL", "SETUSER", "gate", "on", ">first", "~gatehouse:*", "-@all"}, strings.Fields(rights)...)...)
	var password atomic.Value
	password.Store("wrong")
	s := open(t, store.Options{Addresses: addresses(server), Credentials: func() (string, string, error) {
		return "gate", password.Load().(string), nil
	}})
	storetest.Eventually(t, 5*time.Second, "it was refused", func() bool { return server.Do("ACL", "LOG", "1") != "*0" })
	if s.Up() {
		t.Error("it is up with a wrong password")
	}
	password.Store("first")
	up(t, s)
	admits(t, s, 2, bucket(s.Counter("p", "a"), 2))
	_, got := ask(t, s, places(s.Counter("p", "b"), 1))
	got[0].Lease.Release()
	storetest.Eventually(t, 5*time.Second, "the place is free", func() bool { return under(t, s, got[0].Counter) == 0 })

	server.Do("ACL", "SETUSER", "gate", "resetpass", ">second")
	server.Do("CLIENT", "KILL", "USER", "gate")
	password.Store("second")
	storetest.Eventually(t, 10*time.Second, "it is let in with the new one", func() bool {
		c := s.NewCall()
		defer s.Free(c)
		c.Claims = append(c.Claims, bucket(s.Counter("p", "c"), 100))
		return s.Ask(c) == nil
	})
}

func TestOverTLSTheServerMustProveItsName(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, dir)
	secure := storetest.FreePort(t)
	storetest.Start(t, "--tls-port", fmt.Sprint(secure), "--tls-auth-clients", "no", "--tls-cert-file", filepath.Join(dir, "tls.crt"),
		"--tls-key-file", filepath.Join(dir, "tls.key"), "--tls-ca-cert-file", filepath.Join(dir, "tls.crt"))
	address := []string{fmt.Sprint("127.0.0.1:", secure)}
	s := connected(t, store.Options{Addresses: address, TLS: &tls.Config{RootCAs: pool}})
	admits(t, s, 2, bucket(s.Counter("p", "a"), 2))

	var said text
	wrong := open(t, store.Options{
		Addresses: address, TLS: &tls.Config{RootCAs: pool, ServerName: "other.example.com"}, Log: slog.New(slog.NewTextHandler(&said, nil)),
	})
	storetest.Eventually(t, 5*time.Second, "it says why", func() bool { return wrong.Probes() > 1 })
	if wrong.Up() || !strings.Contains(said.String(), "other.example.com") {
		t.Errorf("up %v, said %s", wrong.Up(), said.String())
	}
}

// text is what several write and read.
type text struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// certificate makes one for 127.0.0.1, in files of dir.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{"tls.crt": chain, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(chain)
	return pool
}
