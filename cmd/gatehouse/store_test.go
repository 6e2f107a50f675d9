package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func storeFlags(t *testing.T, args ...string) *storeOptions {
	t.Helper()
	o := &storeOptions{}
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.flags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWithoutAnAddressThereIsNoStore(t *testing.T) {
	s, err := storeFlags(t).open(nil, slog.New(slog.DiscardHandler))
	if s != nil || err != nil {
		t.Errorf("%v %v", s, err)
	}
}

func TestSettingsOfTheStoreThatMakeNoSenseAreRefused(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"not of the form host:port":            {"--store=redis"},
		"several are those of a cluster":       {"--store=a:1,b:1"},
		"needs the name of the primary":        {"--store=a:1", "--store-mode=sentinel"},
		`"ring" is none of`:                    {"--store=a:1", "--store-mode=ring"},
		"without --store-tls":                  {"--store=a:1", "--store-tls-ca=" + empty},
		"there is no certificate in":           {"--store=a:1", "--store-tls", "--store-tls-ca=" + empty},
		"no such file":                         {"--store=a:1", "--store-tls", "--store-tls-ca=" + empty + "x"},
		"--store-tls-key go together":          {"--store=a:1", "--store-tls", "--store-tls-cert=x"},
		"a cluster finds the slot of a key by": {"--store=a:1", "--store-prefix={x}"},
	} {
		s, err := storeFlags(t, args...).open(nil, slog.New(slog.DiscardHandler))
		if s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}

func TestAPasswordIsReadEachTimeFromItsFileOrElseTheEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(storePassword, "of the environment")
	write("first\n")
	from := credentials("gate", file, storePassword)
	for _, want := range []string{"first", "second with space "} {
		if want != "first" {
			write(want + "\r\n")
		}
		if user, password, err := from(); user != "gate" || password != want || err != nil {
			t.Errorf("%q %q %v", user, password, err)
		}
	}
	if _, password, _ := credentials("", "", storePassword)(); password != "of the environment" {
		t.Errorf("%q", password)
	}
	if _, _, err := credentials("", file+"x", storePassword)(); err == nil {
		t.Error("a file that is not there is an empty password")
	}
}

func TestPeersAreANumberOrAddresses(t *testing.T) {
	for _, q := range []struct {
		words     string
		count     int
		addresses int
		wrong     bool
	}{
		{"3", 3, 0, false}, {"10.0.0.1:8081", 0, 1, false}, {"a:1,b:2", 0, 2, false},
		{"0", 0, 0, true}, {"-1", 0, 0, true}, {"a", 0, 0, true}, {"a:1,3", 0, 0, true}, {":80", 0, 0, true},
	} {
		count, addresses, err := peers(strings.Split(q.words, ","))
		if (err != nil) != q.wrong || count != q.count || len(addresses) != q.addresses {
			t.Errorf("%s: %d %v %v", q.words, count, addresses, err)
		}
	}
	if count, addresses, err := peers(nil); count != 0 || addresses != nil || err != nil {
		t.Error("nobody was named")
	}
}
