package infra

import (
	"maps"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

func TestTheRecordIsReadAsItWasWritten(t *testing.T) {
	r := Record{
		"u1": {{Number: 80}: {Pod: 10000}, {Number: 53, UDP: true}: {Pod: 10001}, {Number: 53}: {Pod: 10002}},
		"u2": {{Number: 443}: {Pod: 29999, Freed: time.Unix(1795000000, 0).UTC()}},
	}
	want := map[string]string{"u1": "53=10002 53u=10001 80=10000", "u2": "443=29999@1795000000"}
	if diff := gocmp.Diff(want, r.text()); diff != "" {
		t.Error(diff)
	}
	if back := readRecord(r.text()); !back.equal(r) {
		t.Errorf("%v", back)
	}
	wantPorts := map[translate.PodPort]uint16{{Gateway: "u1", Port: 80}: 10000, {Gateway: "u1", Port: 53}: 10002}
	if got := r.podPorts(); !maps.Equal(got, wantPorts) {
		t.Errorf("pod ports %v", got)
	}
}

func TestWhatCannotBeReadIsLeftOut(t *testing.T) {
	for text, want := range map[string]string{
		"80=10000 nonsense 81=70000 =5 82= 83=10001@soon 84=10002@0": "80=10000",
		"80=10000 81=10000": "80=10000", // two of one pod port
		"80u=1":             "80u=1",
	} {
		if got := readRecord(map[string]string{"u": text}).text()["u"]; got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
	two := readRecord(map[string]string{"a": "80=10000", "b": "80=10000"})
	if len(two) != 1 || two["a"] == nil {
		t.Errorf("two Gateways have one pod port: %v", two)
	}
}

func FuzzARecordOfAnyTextIsWrittenAsItIsRead(f *testing.F) {
	f.Add("80=10000 53u=10001@1795000000", "443=10002")
	f.Fuzz(func(t *testing.T, a, b string) {
		r := readRecord(map[string]string{"a": a, "b": b})
		used := map[uint16]types.UID{}
		for uid, entries := range r {
			for _, e := range entries {
				if used[e.Pod] != "" {
					t.Fatalf("pod port %d is there twice: %v", e.Pod, r)
				}
				used[e.Pod] = uid
			}
		}
		if again := readRecord(r.text()); !again.equal(r) {
			t.Fatalf("%v is read as %v", r, again)
		}
	})
}
