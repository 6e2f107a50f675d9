package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// readKeys reads the keys that processes on several machines share: a key in base64 on each line, the one that seals first; empty lines
// and those that begin with # are passed over.
func readKeys(path string) (keys [][]byte, text []byte, err error) {
	if text, err = os.ReadFile(path); err != nil {
		return nil, nil, fmt.Errorf("--keys: %w", err)
	}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil {
			return nil, nil, fmt.Errorf("--keys %s:%d: not base64; make a key with: head -c 32 /dev/urandom | base64", path, number)
		}
		keys = append(keys, key)
	}
	return keys, text, nil
}

// keysAgain is how often the file of keys is looked at.
const keysAgain = 5 * time.Second

// shareKeys takes the keys of a file, and follows it until ctx ends. A file that breaks keeps what it said last.
func shareKeys(ctx context.Context, path string, set func([][]byte) error, log *slog.Logger) error {
	keys, was, err := readKeys(path)
	if err != nil {
		return err
	}
	if err := set(keys); err != nil {
		return fmt.Errorf("--keys %s: %w", path, err)
	}
	go func() {
		tick := time.NewTicker(keysAgain)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			keys, text, err := readKeys(path)
			if err == nil && bytes.Equal(text, was) {
				continue
			}
			if err == nil {
				was, err = text, set(keys)
			}
			if err != nil {
				log.Error("keys cannot be used; those before them stay", "file", path, "error", err)
			}
		}
	}()
	return nil
}
