package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// storeOptions are the flags that name the store of what replicas share. It is the operator's: no policy can name one.
type storeOptions struct {
	addresses []string
	mode      string
	primary   string
	database  int

	username, passwordFile                 string
	sentinelUsername, sentinelPasswordFile string

	tls                             bool
	tlsCA, tlsName, tlsCert, tlsKey string
	prefix                          string
	timeout                         time.Duration
}

// Where passwords are without a file.
const (
	storePassword    = "GATEHOUSE_STORE_PASSWORD"
	sentinelPassword = "GATEHOUSE_STORE_SENTINEL_PASSWORD"
)

func (o *storeOptions) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.addresses, "store", nil, "Redis or Valkey in which limits of scope Shared are counted: host:port, of a cluster or of sentinels several by commas; empty: none")
	f.StringVar(&o.mode, "store-mode", string(store.Standalone), "standalone, sentinel or cluster")
	f.StringVar(&o.primary, "store-primary", "", "what the sentinels call the primary")
	f.IntVar(&o.database, "store-database", 0, "number of the store's database")
	f.StringVar(&o.username, "store-username", "", "user of the store; empty: its default user")
	f.StringVar(&o.passwordFile, "store-password-file", "", "file with the user's password; empty: $"+storePassword)
	f.StringVar(&o.sentinelUsername, "store-sentinel-username", "", "user of the sentinels")
	f.StringVar(&o.sentinelPasswordFile, "store-sentinel-password-file", "", "file with that user's password; empty: $"+sentinelPassword)
	f.BoolVar(&o.tls, "store-tls", false, "TLS to the store, and to sentinels")
	f.StringVar(&o.tlsCA, "store-tls-ca", "", "file of the CAs that the store's certificate is checked with; empty: the system's")
	f.StringVar(&o.tlsName, "store-tls-server-name", "", "name in the store's certificate; empty: the host of the address")
	f.StringVar(&o.tlsCert, "store-tls-cert", "", "file of a certificate of our own, read at each handshake")
	f.StringVar(&o.tlsKey, "store-tls-key", "", "file of its key")
	f.StringVar(&o.prefix, "store-prefix", store.DefaultPrefix, "what keys in the store begin with; installations that share a store need one each")
	f.DurationVar(&o.timeout, "store-timeout", store.DefaultTimeout, "the longest that a request waits for the store; then its policy's onStoreFailure decides")
}

// there reports whether a store was named.
func (o *storeOptions) there() bool { return len(o.addresses) > 0 }

// open starts to connect; nil: no store was named. A store that is away keeps no process from serving.
func (o *storeOptions) open(seen *telemetry.Telemetry, log *slog.Logger) (*store.Store, error) {
	if !o.there() {
		return nil, nil
	}
	options := store.Options{
		Addresses: o.addresses, Mode: store.Mode(o.mode), Primary: o.primary, Database: o.database,
		Prefix: o.prefix, Timeout: o.timeout, Log: log, Metrics: seen.Store(),
		Credentials:         credentials(o.username, o.passwordFile, storePassword),
		SentinelCredentials: credentials(o.sentinelUsername, o.sentinelPasswordFile, sentinelPassword),
	}
	var err error
	if options.TLS, err = o.tlsConfig(); err != nil {
		return nil, err
	}
	return store.Open(options)
}

// credentials read a password whenever they are asked for, so that a new one is found.
func credentials(user, file, variable string) func() (string, string, error) {
	return func() (string, string, error) {
		if file == "" {
			return user, os.Getenv(variable), nil
		}
		text, err := os.ReadFile(file)
		return user, strings.TrimRight(string(text), "\r\n"), err
	}
}

func (o *storeOptions) tlsConfig() (*tls.Config, error) {
	if !o.tls {
		if o.tlsCA != "" || o.tlsName != "" || o.tlsCert != "" || o.tlsKey != "" {
			return nil, errors.New("settings of the store's TLS without --store-tls: the connection would be plain")
		}
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.tlsName}
	if o.tlsCA != "" {
		text, err := os.ReadFile(o.tlsCA)
		if err != nil {
			return nil, fmt.Errorf("--store-tls-ca: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--store-tls-ca: there is no certificate in %s", o.tlsCA)
		}
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return nil, errors.New("--store-tls-cert and --store-tls-key go together")
	}
	if o.tlsCert != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
			return &pair, err
		}
	}
	return c, nil
}

// patience is how long a process waits for its store before it serves without it: the first requests ought to be counted, too.
const patience = 2 * time.Second

func greet(s *store.Store, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.Connected(ctx) != nil {
		log.Warn("the store does not answer yet; serving goes on without it", "waited", patience)
	}
}

// peers are the other processes that serve the same files: a number, or addresses of their health ports.
func peers(words []string) (count int, addresses []string, err error) {
	if len(words) == 1 {
		if n, e := strconv.Atoi(words[0]); e == nil {
			if n < 1 {
				return 0, nil, fmt.Errorf("--peers: %d processes are none", n)
			}
			return n, nil, nil
		}
	}
	for _, w := range words {
		if host, port, err := net.SplitHostPort(w); err != nil || host == "" || port == "" {
			return 0, nil, fmt.Errorf("--peers: %q is neither a number of processes nor the host:port of one's health", w)
		}
	}
	return 0, words, nil
}
