package infra

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// Port is one of a Gateway's spec.
type Port struct {
	Number uint16
	UDP    bool // else TCP
}

func (p Port) String() string {
	if p.UDP {
		return strconv.Itoa(int(p.Number)) + "u"
	}
	return strconv.Itoa(int(p.Number))
}

// name is that of the port in a Service. It does not come from a listener: two may share a port, and one may get another name.
func (p Port) name() string {
	return fmt.Sprintf("%s-%d", strings.ToLower(string(p.protocol())), p.Number)
}

func (p Port) protocol() corev1.Protocol {
	if p.UDP {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), strings.Compare(string(a.protocol()), string(b.protocol())))
}

// Entry is what the record says of a port.
type Entry struct {
	Pod   uint16    // where it is bound in each pod
	Freed time.Time // since when it is not needed any more; zero: it is
}

func (e Entry) held() bool { return e.Freed.IsZero() }

// Record says of each Gateway in which port of the pods each of its ports is bound. No two entries have the same pod port, whatever
// their protocols. It is stored in one ConfigMap, a value for each Gateway, so that one write with a resourceVersion decides between two
// who want the same port.
type Record map[types.UID]map[Port]Entry

// readRecord reads what text wrote. What cannot be read is left out: Services still say which ports they have published, and Plan takes
// those up again.
func readRecord(data map[string]string) Record {
	r := Record{}
	used := map[uint16]bool{}
	for _, uid := range slices.Sorted(maps.Keys(data)) {
		for word := range strings.FieldsSeq(data[uid]) {
			if p, e, ok := readEntry(word); ok && !used[e.Pod] {
				used[e.Pod] = true
				r.set(types.UID(uid), p, e)
			}
		}
	}
	return r
}

// readEntry reads "80=10000", "53u=10001" or, freed, "80=10000@1795000000".
func readEntry(word string) (p Port, e Entry, ok bool) {
	spec, rest, _ := strings.Cut(word, "=")
	pod, freed, isFreed := strings.Cut(rest, "@")
	spec, p.UDP = strings.CutSuffix(spec, "u")
	number, err1 := strconv.ParseUint(spec, 10, 16)
	podNumber, err2 := strconv.ParseUint(pod, 10, 16)
	if err1 != nil || err2 != nil {
		return p, e, false
	}
	p.Number, e.Pod = uint16(number), uint16(podNumber)
	if isFreed {
		seconds, err := strconv.ParseInt(freed, 10, 64)
		if err != nil || seconds == 0 {
			return p, e, false
		}
		e.Freed = time.Unix(seconds, 0).UTC()
	}
	return p, e, true
}

// text is the record as the data of a ConfigMap.
func (r Record) text() map[string]string {
	data := make(map[string]string, len(r))
	for uid, entries := range r {
		var words []string
		for _, p := range slices.SortedFunc(maps.Keys(entries), comparePorts) {
			e := entries[p]
			word := fmt.Sprintf("%s=%d", p, e.Pod)
			if !e.held() {
				word += fmt.Sprintf("@%d", e.Freed.Unix())
			}
			words = append(words, word)
		}
		data[string(uid)] = strings.Join(words, " ")
	}
	return data
}

func (r Record) set(uid types.UID, p Port, e Entry) {
	if r[uid] == nil {
		r[uid] = map[Port]Entry{}
	}
	r[uid][p] = e
}

func (r Record) clone() Record {
	out := make(Record, len(r))
	for uid, entries := range r {
		out[uid] = maps.Clone(entries)
	}
	return out
}

func (r Record) equal(other Record) bool {
	return maps.EqualFunc(r, other, func(a, b map[Port]Entry) bool { return maps.Equal(a, b) })
}

// podPorts is the record as Build takes it.
func (r Record) podPorts() map[translate.PodPort]uint16 {
	out := map[translate.PodPort]uint16{}
	for uid, entries := range r {
		for p, e := range entries {
			if e.held() && !p.UDP {
				out[translate.PodPort{Gateway: uid, Port: p.Number}] = e.Pod
			}
		}
	}
	return out
}
