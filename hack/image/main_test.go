package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// program writes an ELF file with nothing to run: its header and one segment.
func program(t *testing.T, machine elf.Machine, segment elf.ProgType, mode os.FileMode) string {
	t.Helper()
	var b bytes.Buffer
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	err := errors.Join(
		binary.Write(&b, binary.LittleEndian, header),
		binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(segment)}),
	)
	name := filepath.Join(t.TempDir(), "program")
	if err := errors.Join(err, os.WriteFile(name, b.Bytes(), mode)); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAnImageHasWhatItWasGivenAndNothingElse(t *testing.T) {
	server := program(t, elf.EM_AARCH64, elf.PT_LOAD, 0o700)
	notice := filepath.Join(t.TempDir(), "notice")
	if err := os.WriteFile(notice, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := image{
		names: []string{"shop/server:v1", "shop/server:v2"}, user: "65532:65532", ports: []string{"8080/tcp"},
		labels: map[string]string{"org.opencontainers.image.version": "v1"},
		files:  []file{{server, "/server"}, {notice, "/etc/shop/notice"}},
	}
	var b bytes.Buffer
	if err := i.write(&b); err != nil {
		t.Fatal(err)
	}
	outer := untar(t, &b)

	var m []manifest
	decode(t, outer["manifest.json"].content, &m)
	if len(m) != 1 || len(m[0].Layers) != 1 {
		t.Fatalf("manifest: %+v", m)
	}
	if diff := cmp.Diff(i.names, m[0].RepoTags); diff != "" {
		t.Errorf("names: %s", diff)
	}
	config, layer := outer[m[0].Config].content, outer[m[0].Layers[0]].content
	if want := digest(config) + ".json"; m[0].Config != want {
		t.Errorf("the configuration is called %s, not %s", m[0].Config, want)
	}

	var c configuration
	decode(t, config, &c)
	want := i.config("arm64", digest(layer))
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("configuration: %s", diff)
	}
	if diff := cmp.Diff([]string{"/server"}, c.Config.Entrypoint); diff != "" {
		t.Errorf("entrypoint: %s", diff)
	}

	got := map[string]string{}
	for name, f := range untar(t, bytes.NewReader(layer)) {
		got[name] = os.FileMode(f.header.Mode).String()
		if f.header.Uid != 0 || f.header.Gid != 0 || !f.header.ModTime.Equal(epoch) {
			t.Errorf("%s is of %d:%d, of %v", name, f.header.Uid, f.header.Gid, f.header.ModTime)
		}
	}
	if diff := cmp.Diff(map[string]string{
		"server": "-rwxr-xr-x", "etc/": "-rwxr-xr-x", "etc/shop/": "-rwxr-xr-x", "etc/shop/notice": "-rw-r--r--",
	}, got); diff != "" {
		t.Errorf("files: %s", diff)
	}
}

func TestTheSameFilesMakeTheSameBytes(t *testing.T) {
	write := func(mode os.FileMode) []byte {
		i := image{names: []string{"a:b"}, labels: map[string]string{"x": "1", "y": "2", "z": "3"}, files: []file{{program(t, elf.EM_X86_64, elf.PT_LOAD, mode), "/a"}}}
		var b bytes.Buffer
		if err := i.write(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if !bytes.Equal(write(0o700), write(0o755)) {
		t.Error("two images of the same program differ")
	}
}

func TestWhatCouldNotRunInAnImageIsRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	static := program(t, elf.EM_X86_64, elf.PT_LOAD, 0o755)
	for name, c := range map[string]struct {
		file file
		want string
	}{
		"it wants a loader":       {file{program(t, elf.EM_X86_64, elf.PT_INTERP, 0o755), "/a"}, "CGO_ENABLED=0"},
		"another kind of machine": {file{program(t, elf.EM_S390, elf.PT_LOAD, 0o755), "/a"}, "EM_S390"},
		"a script":                {file{text, "/a"}, "no Linux program"},
		"it isn't there":          {file{text + "s", "/a"}, "no such file"},
		"a path from nowhere":     {file{static, "a"}, "absolute path"},
		"a path upwards":          {file{static, "/../a"}, "absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := image{names: []string{"a:b"}, files: []file{c.file}}.writeFile(filepath.Join(dir, "image.tar"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error doesn't say %q: %v", c.want, err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
}

type entry struct {
	header  *tar.Header
	content []byte
}

func untar(t *testing.T, r io.Reader) map[string]entry {
	t.Helper()
	entries := map[string]entry{}
	in := tar.NewReader(r)
	for {
		header, err := in.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = entry{header, content}
	}
}

func decode(t *testing.T, text []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(text, to); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
