package watch

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/gatehouse-dev/gatehouse/hack/kube"
)

var control *kube.Control

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	runtimelog.SetLogger(logr.Discard())
	var err error
	if control, err = kube.Start(context.Background(), ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := control.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// pond is a namespace of its own with a pool that watches Secrets in it, and what the pool told.
type pond struct {
	t         *testing.T
	admin     client.WithWatch
	pool      *Pool
	namespace string

	mu      sync.Mutex // guards what follows
	told    map[string]string
	answers map[string]string
	watches map[string]int // how often each name was watched; "": the namespace
}

// counting counts the watches that are opened.
type counting struct {
	client.WithWatch
	of *pond
}

func (c counting) Watch(ctx context.Context, list client.ObjectList, o ...client.ListOption) (apiwatch.Interface, error) {
	raw := (&client.ListOptions{}).ApplyOptions(o).Raw
	_, name, _ := strings.Cut(raw.FieldSelector, "=")
	c.of.mu.Lock()
	c.of.watches[name]++
	c.of.mu.Unlock()
	return c.WithWatch.Watch(ctx, list, o...)
}

func config() *rest.Config {
	return &rest.Config{Host: control.Host, BearerToken: control.Token, TLSClientConfig: rest.TLSClientConfig{CAData: control.CA}, QPS: -1}
}

// newPond makes one; as is the name of a ServiceAccount without rights, "" the administrator.
func newPond(t *testing.T, namespace, as string) *pond {
	t.Helper()
	admin, err := client.NewWithWatch(config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	asked := config()
	if as != "" {
		asked.Impersonate.UserName = "system:serviceaccount:" + namespace + ":" + as
	}
	reader, err := client.NewWithWatch(asked, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &pond{t: t, admin: admin, namespace: namespace, told: map[string]string{}, answers: map[string]string{}, watches: map[string]int{}}
	p.must(admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	p.pool = NewPool(PoolOptions{
		Options: Options{
			Client: counting{reader, p}, Object: &corev1.Secret{}, List: &corev1.SecretList{}, Set: p.set, Delete: p.remove,
			Patience: 500 * time.Millisecond, Longest: 200 * time.Millisecond, Log: testr.New(t),
		},
		Many: 3, Answered: p.answered,
	})
	t.Cleanup(p.pool.Stop)
	return p
}

func (p *pond) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pond) set(all ...client.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range all {
		p.told[o.GetName()] = string(o.(*corev1.Secret).Data["is"])
	}
}

func (p *pond) remove(all ...client.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range all {
		delete(p.told, o.GetName())
	}
}

func (p *pond) answered(name types.NamespacedName, s State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[name.Name] = map[bool]string{true: "refused", false: "synced"}[s.Refused]
}

func (p *pond) secret(name, is string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name}, Data: map[string][]byte{"is": []byte(is)}}
}

func (p *pond) create(names ...string) {
	p.t.Helper()
	for _, name := range names {
		p.must(p.admin.Create(p.t.Context(), p.secret(name, name)))
	}
}

func (p *pond) want(names ...string) {
	all := map[types.NamespacedName]bool{}
	for _, name := range names {
		all[types.NamespacedName{Namespace: p.namespace, Name: name}] = true
	}
	p.pool.Want(all)
}

// expect waits until that is what is told: "a=first b=second".
func (p *pond) expect(what, want string) {
	p.t.Helper()
	p.eventually(what, want, func() string {
		var all []string
		for _, name := range slices.Sorted(maps.Keys(p.told)) {
			all = append(all, name+"="+p.told[name])
		}
		return strings.Join(all, " ")
	})
}

func (p *pond) answer(name, want string) {
	p.t.Helper()
	p.eventually("answer about "+name, want, func() string { return p.answers[name] })
}

func (p *pond) eventually(what, want string, is func() string) {
	p.t.Helper()
	got := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		got = is()
		p.mu.Unlock()
		if got == want {
			return
		}
	}
	p.t.Fatalf("%s: %q, want %q", what, got, want)
}

func TestOnlyWhatIsWantedIsWatched(t *testing.T) {
	p := newPond(t, "pool-wanted", "")
	p.create("a", "b", "c")
	p.want("a", "nope")
	p.expect("one is there", "a=a")
	p.answer("a", "synced")
	p.answer("nope", "synced")

	p.must(p.admin.Update(t.Context(), p.secret("a", "changed")))
	p.expect("a change", "a=changed")
	p.create("nope")
	p.expect("one that came later", "a=changed nope=nope")
	p.want("nope", "b")
	p.expect("another one is wanted", "b=b nope=nope")
	p.must(p.admin.Delete(t.Context(), p.secret("nope", "")))
	p.expect("one that is gone", "b=b")
	p.want()
	p.expect("none is wanted", "")

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watches["c"] > 0 || p.watches[""] > 0 {
		t.Errorf("watched: %v", p.watches)
	}
}

func TestManyNamesOfANamespaceAreOneWatch(t *testing.T) {
	p := newPond(t, "pool-many", "")
	p.create("a", "b", "c", "d", "e", "f", "unwanted")
	p.want("a", "b", "gone")
	p.create("gone")
	p.expect("few", "a=a b=b gone=gone")
	p.want("a", "b", "gone", "d", "nope")
	p.expect("many", "a=a b=b d=d gone=gone")
	p.answer("nope", "synced")
	p.must(p.admin.Update(t.Context(), p.secret("b", "changed")))
	p.must(p.admin.Delete(t.Context(), p.secret("gone", "")))
	p.must(p.admin.Update(t.Context(), p.secret("unwanted", "changed")))
	p.expect("changes", "a=a b=changed d=d")
	p.want("a", "e", "f")
	p.expect("some of them, and others", "a=a e=e f=f")
	p.answer("f", "synced")
	p.want()
	p.expect("none", "")
	p.want("b")
	p.expect("few again", "b=changed")

	p.mu.Lock()
	defer p.mu.Unlock()
	want := map[string]int{"": 1, "a": 1, "b": 2, "gone": 1}
	if diff := cmp.Diff(want, p.watches); diff != "" {
		t.Errorf("watched: want (-), got (+):\n%s", diff)
	}
}

func TestRightsToSomeNamesAreEnough(t *testing.T) {
	p := newPond(t, "pool-names", "gatehouse")
	p.create("a", "b", "c", "d")
	names := []string{"a", "b", "c", "d"}
	grant := func(resources ...string) {
		rule := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: resources, Verbs: []string{"get", "list", "watch"}}
		p.must(p.admin.Create(t.Context(), &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: strings.Join(resources, "-")}, Rules: []rbacv1.PolicyRule{rule},
		}))
		p.must(p.admin.Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: strings.Join(resources, "-")},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: strings.Join(resources, "-")},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: p.namespace, Name: "gatehouse"}},
		}))
	}
	grant("a", "b", "c")
	p.want(names...) // so many that the whole would be watched, if that were allowed
	p.expect("those that may be read", "a=a b=b c=c")
	p.answer("d", "refused")
	grant("d")
	p.expect("the right came later", "a=a b=b c=c d=d")
	p.answer("d", "synced")
}

func TestARightThatIsTakenAwayIsAnAnswerAfterAWhile(t *testing.T) {
	p := newPond(t, "pool-taken", "gatehouse")
	p.create("a")
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "read"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}}},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "read"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "read"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: p.namespace, Name: "gatehouse"}},
	}
	p.want("a")
	began := time.Now()
	p.answer("a", "refused")
	if patience := time.Since(began); patience < 500*time.Millisecond {
		t.Errorf("it was an answer after %s", patience)
	}
	p.must(p.admin.Create(t.Context(), role))
	p.must(p.admin.Create(t.Context(), binding))
	p.expect("it may be read", "a=a")
	p.answer("a", "synced")
}
