package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// teller logs what is wrong with files and their objects, with file and line: once, and again only after it was right meanwhile.
type teller struct {
	log *slog.Logger

	mu       sync.Mutex // guards what follows
	files    source.Result
	statuses []translate.Status
	said     map[string]bool
}

// read takes what the files say now.
func (t *teller) read(r source.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files = r
	t.tell()
}

// told takes what the objects' statuses are now.
func (t *teller) told(statuses []translate.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.statuses = statuses
	t.tell()
}

// tell logs what was not said before; t.mu is held.
func (t *teller) tell() {
	now := map[string]bool{}
	for _, problems := range [][]source.Problem{t.files.Problems, controllers.Complaints(t.statuses, t.files)} {
		for _, p := range problems {
			text := p.String()
			if !now[text] && !t.said[text] {
				t.log.Log(context.Background(), level(p), text)
			}
			now[text] = true
		}
	}
	for text := range t.said {
		if !now[text] {
			t.log.Info("right again", "was", text)
		}
	}
	t.said = now
}

func level(p source.Problem) slog.Level {
	if p.Warning {
		return slog.LevelWarn
	}
	return slog.LevelError
}
