package source

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// piece is what one YAML document of a file says; its lines count from the document's begin. A piece whose text has not
// changed is taken over into the file's next version, so that an edit costs what was edited.
type piece struct {
	objects  []placedObject
	problems []Problem
}

type placedObject struct {
	object Object
	root   *yaml.Node
}

// readVersion reads a file's content; before holds pieces of its last version by the hash of their text. Documents do
// not depend on each other, so they are read on all cores.
func readVersion(name string, text []byte, before map[uint64]*piece) *version {
	v := &version{hash: xxhash.Sum64(text), size: len(text), pieces: map[uint64]*piece{}}
	parts := splitDocuments(text)
	pieces := make([]*piece, len(parts))
	var wait sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, part := range parts {
		if known := before[xxhash.Sum64(part.text)]; known != nil {
			pieces[i] = known
			continue
		}
		turn <- struct{}{}
		wait.Go(func() {
			pieces[i] = readPiece(part.text)
			<-turn
		})
	}
	wait.Wait()

	for i, part := range parts {
		v.pieces[xxhash.Sum64(part.text)] = pieces[i]
		for _, p := range pieces[i].problems {
			p.File, p.Line = name, part.offset+p.Line
			v.problems = append(v.problems, p)
		}
		for _, o := range pieces[i].objects {
			at := place{file: name, line: part.offset + o.root.Line, offset: part.offset, root: o.root}
			v.items = append(v.items, item{object: o.object, rank: -1, place: at})
		}
	}
	return v
}

func readPiece(text []byte) *piece {
	doc, problems := parse(text)
	p := &piece{problems: problems}
	if doc == nil {
		return p
	}
	documents, problems := doc.objects()
	p.problems = append(p.problems, problems...)
	for _, d := range documents {
		obj, problems := d.admit()
		p.problems = append(p.problems, problems...)
		if obj != nil {
			p.objects = append(p.objects, placedObject{obj, d.root})
		}
	}
	return p
}

// admit makes the typed object that a document says, or problems.
func (d *document) admit() (Object, []Problem) {
	apiVersion, _ := d.value["apiVersion"].(string)
	kindName, _ := d.value["kind"].(string)
	k, version, unknown, warning := kindOf(apiVersion, kindName)
	id := d.identity(kindName, k.namespaced)
	if unknown != nil {
		problem := d.problem(id, *unknown)
		problem.Warning = warning
		return nil, []Problem{problem}
	}
	if found := d.prepareMetadata(k); found != nil {
		return nil, []Problem{d.problem(id, *found)}
	}
	obj, found := k.admit.admit(version, d.value, k.empty())
	var problems []Problem
	for _, f := range found {
		problems = append(problems, d.problem(id, f))
	}
	if len(problems) > 0 {
		return nil, problems
	}
	gvk := schema.GroupVersionKind{Group: k.group, Version: k.admit.versions()[0], Kind: k.name}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	d.value["apiVersion"] = gvk.GroupVersion().String()
	identify(obj, d.value)
	return obj, nil
}

// identity is what the document says it is, as far as it can be read.
func (d *document) identity(kindName string, namespaced bool) identity {
	id := identity{kind: kindName}
	meta, _ := d.value["metadata"].(map[string]any)
	id.name, _ = meta["name"].(string)
	id.namespace, _ = meta["namespace"].(string)
	if id.namespace == "" && namespaced {
		id.namespace = metav1.NamespaceDefault
	}
	return id
}

// problem gives a finding its place.
func (d *document) problem(id identity, f finding) Problem {
	node, value := findBoth(d.root, f.field)
	return Problem{
		Line: node.Line, Column: node.Column,
		Object: id.String(), Field: f.field, Message: f.message + quoteHint(f.message, value),
	}
}

// quoteHint explains the trap that most people fall into once: in Kubernetes' YAML, the words on, off, yes, no, y and n
// are booleans.
func quoteHint(message string, value *yaml.Node) string {
	isPlain := value != nil && value.Kind == yaml.ScalarNode && value.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
	if !isPlain || !(strings.Contains(message, "of type string") || strings.Contains(message, "must be a string")) {
		return ""
	}
	return fmt.Sprintf("; YAML does not read %s as text unless it is quoted", value.Value)
}

// serversOwn are fields of metadata that only the server sets. `kubectl get -o yaml` writes them, so they are dropped.
var serversOwn = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"}

// prepareMetadata drops what only the server sets and fills in the namespace.
func (d *document) prepareMetadata(k kind) *finding {
	meta, isMap := d.value["metadata"].(map[string]any)
	if !isMap {
		if d.value["metadata"] != nil {
			return &finding{"metadata", "must be an object"}
		}
		return &finding{"metadata.name", "Required value: an object from a file has a name"}
	}
	for _, name := range serversOwn {
		delete(meta, name)
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	}
	if name, isText := meta["name"].(string); name == "" && (isText || meta["name"] == nil) {
		return &finding{"metadata.name", "Required value: an object from a file has a name"}
	}
	if meta["namespace"] == nil && k.namespaced {
		meta["namespace"] = metav1.NamespaceDefault
	}
	return nil
}

// identify sets what a server would give an object: UID and generation.
func identify(obj Object, value map[string]any) {
	id := identityOf(obj)
	sum := sha256.Sum256([]byte(id.kind + "/" + id.namespace + "/" + id.name))
	obj.SetUID(types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])))
	text, err := json.Marshal(value) // sorts keys; the value has its defaults, and no status
	if err != nil {
		panic("source: " + err.Error()) // it was made from JSON
	}
	obj.SetGeneration(int64(xxhash.Sum64(text)>>1) | 1) // positive, and never zero
}

// epoch is when the first object of the first file was made.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// setAge gives an object its age: the seconds since epoch are its rank. Each file has room for 2^20 objects. The object
// that others may hold is left as it is.
func setAge(item *item, rank int64) {
	if item.rank == rank {
		return
	}
	if item.rank >= 0 {
		item.object = item.object.DeepCopyObject().(Object)
	}
	item.rank = rank
	item.object.SetCreationTimestamp(metav1.NewTime(time.Unix(epoch.Unix()+rank, 0).UTC()))
}

// withoutPath says what is wrong with a file without saying again which.
func withoutPath(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Op + ": " + pathErr.Err.Error()
	}
	return err.Error()
}
