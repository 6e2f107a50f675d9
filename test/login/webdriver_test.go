//go:build login

package login

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long we wait for what must come.
const patience = 30 * time.Second

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// programs are the browser and its driver.
var programs = sync.OnceValues(func() ([]string, error) {
	out, err := exec.Command("../../hack/chromium.sh").Output()
	lines := strings.Fields(string(out))
	if err == nil && len(lines) != 2 {
		err = fmt.Errorf("hack/chromium.sh said %q", out)
	}
	return lines, err
})

// driver starts a chromedriver of the test's own.
func driver(t testing.TB) (base, chromium string) {
	t.Helper()
	paths, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(paths[1], "--port=0")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`started successfully on port (\d+)`).FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, out)
			return "http://127.0.0.1:" + m[1], paths[0]
		}
	}
	t.Fatal("chromedriver did not start")
	return "", ""
}

// browser is a session of WebDriver (W3C WebDriver 2): a browser with cookies of its own.
type browser struct {
	t    testing.TB
	base string
}

// newBrowser starts a browser; prefs are Chromium's.
func newBrowser(t testing.TB, prefs map[string]any) *browser {
	t.Helper()
	base, chromium := driver(t)
	b := &browser{t, base}
	if prefs == nil {
		prefs = map[string]any{}
	}
	options := map[string]any{
		"binary": chromium, "prefs": prefs,
		"args": []string{
			"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + t.TempDir(),
			"--host-resolver-rules=MAP *.example.test 127.0.0.1", "--no-proxy-server", "--disable-background-networking", "--disable-component-update",
		},
	}
	var session struct{ SessionID string }
	b.call("POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"acceptInsecureCerts": true, "goog:chromeOptions": options,
	}}}, &session)
	b.base += "/session/" + session.SessionID
	t.Cleanup(func() { b.call("DELETE", "", nil, nil) })
	return b
}

func (b *browser) call(method, path string, body, value any) {
	b.t.Helper()
	var text []byte
	if method == "POST" {
		if body == nil {
			body = struct{}{}
		}
		text, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, b.base+path, bytes.NewReader(text))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: 2 * patience}).Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := struct{ Value any }{value}
	raw, err := io.ReadAll(resp.Body)
	if err == nil && value != nil {
		err = json.Unmarshal(raw, &answer)
	}
	if err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("WebDriver %s %s: %d %v %.600s", method, path, resp.StatusCode, err, raw)
	}
}

// open goes to an address and waits until the page is there.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("POST", "/url", map[string]any{"url": url}, nil)
}

func (b *browser) url() (url string) {
	b.t.Helper()
	b.call("GET", "/url", nil, &url)
	return url
}

// at waits until the browser is at an address that begins so, and the page is there.
func (b *browser) at(prefix string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var state string
		b.run("return document.readyState", &state)
		if url := b.url(); strings.HasPrefix(url, prefix) && state == "complete" {
			return
		} else if time.Now().After(deadline) {
			b.t.Fatalf("the browser is at %s, not at %s:\n%.2000s", url, prefix, b.text())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// run runs a script of the page.
func (b *browser) run(script string, value any, args ...any) {
	b.t.Helper()
	b.call("POST", "/execute/sync", map[string]any{"script": script, "args": append([]any{}, args...)}, value)
}

// text is what one reads on the page.
func (b *browser) text() (text string) {
	b.t.Helper()
	b.run("return document.title + '\\n' + (document.body ? document.body.innerText : '')", &text)
	return text
}

func (b *browser) element(css string) string {
	b.t.Helper()
	var e map[string]string
	b.call("POST", "/element", map[string]any{"using": "css selector", "value": css}, &e)
	for _, id := range e {
		return "/element/" + id
	}
	b.t.Fatalf("no %s", css)
	return ""
}

func (b *browser) write(css, text string) {
	b.t.Helper()
	b.call("POST", b.element(css)+"/value", map[string]any{"text": text}, nil)
}

func (b *browser) click(css string) {
	b.t.Helper()
	b.call("POST", b.element(css)+"/click", nil, nil)
}

// cookie is one as the browser keeps it.
type cookie struct {
	Name, Value, Domain, Path, SameSite string
	Secure, HTTPOnly                    bool
	Expiry                              int64
}

// cookies are those for the page that is open, scripts' or not.
func (b *browser) cookies() (list []cookie) {
	b.t.Helper()
	b.call("GET", "/cookie", nil, &list)
	slices.SortFunc(list, func(x, y cookie) int { return strings.Compare(x.Name, y.Name) })
	return list
}

// tab opens another tab and goes there; the tab that was open stays.
func (b *browser) tab() (handle string) {
	b.t.Helper()
	var made struct{ Handle string }
	b.call("POST", "/window/new", map[string]any{"type": "tab"}, &made)
	b.call("POST", "/window", map[string]any{"handle": made.Handle}, nil)
	return made.Handle
}

func (b *browser) switchTo(handle string) {
	b.t.Helper()
	b.call("POST", "/window", map[string]any{"handle": handle}, nil)
}

func (b *browser) current() (handle string) {
	b.t.Helper()
	b.call("GET", "/window", nil, &handle)
	return handle
}
