package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// other is a value for a flag that is not its default.
func other(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "duration":
		return "1234s"
	case "bool":
		return "true"
	case "networks":
		return "192.0.2.1,10.0.0.0/8"
	case "string":
		return "some-text"
	}
	return "123"
}

func TestEachSettingHasAFlagOfItsOwn(t *testing.T) {
	fields := map[string]string{}
	var flags []*pflag.Flag
	list := func(s *dataplane.Settings) *pflag.FlagSet {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		settingsFlags(f, s)
		return f
	}
	defaults := dataplane.Defaults()
	list(&defaults).VisitAll(func(f *pflag.Flag) { flags = append(flags, f) })
	for _, f := range flags {
		s := dataplane.Defaults()
		if err := list(&s).Set(f.Name, other(f)); err != nil {
			t.Fatal(f.Name, err)
		}
		changed := differing(reflect.ValueOf(dataplane.Defaults()), reflect.ValueOf(s), "")
		if len(changed) != 1 || fields[changed[0]] != "" {
			t.Errorf("--%s changes %v (already of %q)", f.Name, changed, fields[changed[0]])
		}
		fields[changed[0]] = f.Name
	}
	for _, name := range leaves(reflect.TypeOf(dataplane.Settings{}), "") {
		if fields[name] == "" && name != "LocalEndpoints" { // what that is follows from the command
			t.Errorf("setting %s has no flag", name)
		}
	}
}

func leaves(t reflect.Type, prefix string) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type.Kind() == reflect.Struct {
			out = append(out, leaves(f.Type, prefix+f.Name+".")...)
			continue
		}
		out = append(out, prefix+f.Name)
	}
	return out
}

func differing(a, b reflect.Value, prefix string) (out []string) {
	for i := range a.NumField() {
		name, x, y := prefix+a.Type().Field(i).Name, a.Field(i), b.Field(i)
		switch {
		case x.Kind() == reflect.Struct:
			out = append(out, differing(x, y, name+".")...)
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			out = append(out, name)
		}
	}
	return out
}

func TestEachFlagIsAKeyOfTheConfigFile(t *testing.T) {
	for camel, want := range map[string]string{
		"headTimeout": "head-timeout", "maxURIBytes": "max-uri-bytes", "tlsHandshakeTimeout": "tls-handshake-timeout", "zone": "zone",
		"otlpEndpoint": "otlp-endpoint", "maxIdlePerEndpoint": "max-idle-per-endpoint",
	} {
		if got := kebab(camel); got != want {
			t.Errorf("%s: %s, want %s", camel, got, want)
		}
	}
}

func read(t *testing.T, text string, args ...string) (dataplane.Settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := dataplane.Defaults()
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	settingsFlags(f, &s)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s, readConfig(path, f)
}

func TestAFlagWinsOverTheConfigFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	os.WriteFile(path, []byte("headTimeout: 5s\nidleTimeout: 6s\ntrustedProxies: [10.0.0.0/8, 192.0.2.1]\nforwarded: true\n"), 0o600)
	s := dataplane.Defaults()
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	settingsFlags(f, &s)
	if err := f.Parse([]string{"--idle-timeout=7s"}); err != nil {
		t.Fatal(err)
	}
	if err := readConfig(path, f); err != nil {
		t.Fatal(err)
	}
	if s.HeadTimeout != 5*time.Second || s.IdleTimeout != 7*time.Second || len(s.TrustedProxies) != 2 || !s.Forwarded {
		t.Fatalf("%+v", s)
	}
}

func TestAWrongConfigFileIsToldWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"headTimeout: 5s\nheadTimeuot: 5s\n": `config.yaml:2: there is no setting "headTimeuot"`,
		"\n\nheadTimeout: soon\n":            "config.yaml:3: headTimeout:",
		"trustedProxies: [10.0.0.0/99]\n":    "config.yaml:1: trustedProxies:",
		"headTimeout: {a: b}\n":              "config.yaml:1: headTimeout: want a value",
		"- a\n":                              "config.yaml:1: settings are a mapping",
		"a: [\n":                             "config.yaml:",
	} {
		_, err := read(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := read(t, ""); err != nil {
		t.Error("an empty file is fine:", err)
	}
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	if err := dataplane.Defaults().Check(); err != nil {
		t.Fatal(err)
	}
	s := dataplane.Defaults()
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	settingsFlags(f, &s)
	f.VisitAll(func(flag *pflag.Flag) {
		low := "-1"
		switch flag.Value.Type() {
		case "duration":
			low = "-1s"
		case "int", "int64":
		default:
			return
		}
		was := flag.Value.String()
		flag.Value.Set(low)
		if s.Check() == nil {
			t.Errorf("--%s=%s is taken", flag.Name, low)
		}
		flag.Value.Set(was)
	})
}
