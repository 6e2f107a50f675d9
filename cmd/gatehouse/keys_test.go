package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFileOfKeysIsReadByLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# current\nYWFh\n\n  YmJi  \n# the one before\nY2Nj")
	keys, _, err := readKeys(path)
	if err != nil || len(keys) != 3 || string(keys[0]) != "aaa" || string(keys[1]) != "bbb" || string(keys[2]) != "ccc" {
		t.Errorf("%q %v", keys, err)
	}
	write("YWFh\nnot base64!\n")
	if _, _, err := readKeys(path); err == nil || !strings.Contains(err.Error(), "keys:2: not base64; make a key with") {
		t.Errorf("%v", err)
	}
	if _, _, err := readKeys(path + "x"); err == nil {
		t.Error("a file that is not there")
	}
}
