package members

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// Peers counts the live ones of a list of replicas, for processes that read files and have no cluster to ask. Each of them, this one
// included, is asked for /readyz on its health address. It is live when it says that it is ready, and no more when it says anything else
// or nothing listens there; one that does not answer in time is given a second chance.
//
// All are taken for live until they were asked: to admit too little at first is the better mistake.
type Peers struct {
	Addresses []string       // host:port
	Every     time.Duration  // 0: a second
	Told      func(live int) // at least 1; called by one goroutine, at first and after each change
	Log       logr.Logger
}

// peer is one of them.
type peer struct {
	address string
	live    bool
	silent  int // times in a row
}

// Run asks until ctx ends.
func (p *Peers) Run(ctx context.Context) {
	every := p.Every
	if every == 0 {
		every = time.Second
	}
	client := &http.Client{
		Timeout:       every,
		Transport:     &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	all := make([]*peer, len(p.Addresses))
	for i, a := range p.Addresses {
		all[i] = &peer{address: a, live: true}
	}
	last := 0
	tell := func() {
		live := 0
		for _, one := range all {
			if one.live {
				live++
			}
		}
		if live = max(1, live); live != last {
			p.Log.Info("replicas that share the traffic", "live", live, "listed", len(all))
			p.Told(live)
			last = live
		}
	}
	tell()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var asking sync.WaitGroup
		for _, one := range all {
			asking.Go(func() { one.ask(ctx, client) })
		}
		asking.Wait()
		if ctx.Err() != nil {
			return
		}
		tell()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *peer) ask(ctx context.Context, client *http.Client) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/readyz", nil)
	if err != nil {
		p.live = false
		return
	}
	answer, err := client.Do(request)
	switch {
	case err == nil:
		answer.Body.Close()
		p.live, p.silent = answer.StatusCode == http.StatusOK, 0
	case timedOut(err):
		p.silent++
		p.live = p.live && p.silent < 2
	default:
		p.live = false
	}
}

func timedOut(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}
