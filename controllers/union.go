package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// union is what several watches of one kind tell, whose objects may be the same: one is there while any of them has it, in the newest
// version. Without it the end of one watch would be the end of an object that another one follows.
type union struct {
	tell struct{ set, delete func(...Object) }

	// mu guards has, and is held while somebody is told: what is told last is what holds.
	mu  sync.Mutex
	has map[types.NamespacedName]map[string]Object // by who told it
}

func newUnion(set, remove func(...Object)) *union {
	u := &union{has: map[types.NamespacedName]map[string]Object{}}
	u.tell.set, u.tell.delete = set, remove
	return u
}

func (u *union) set(by string, all ...Object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range all {
		name := types.NamespacedName(identityOf(o).name)
		if u.has[name] == nil {
			u.has[name] = map[string]Object{}
		}
		u.has[name][by] = o
		u.tell.set(newest(o, u.has[name]))
	}
}

func (u *union) delete(by string, all ...Object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range all {
		u.remove(by, types.NamespacedName(identityOf(o).name), o)
	}
}

// drop takes back all that one of them told.
func (u *union) drop(by string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, versions := range u.has {
		if o := versions[by]; o != nil {
			u.remove(by, name, o)
		}
	}
}

// remove takes an object back; u.mu is held.
func (u *union) remove(by string, name types.NamespacedName, gone Object) {
	delete(u.has[name], by)
	for _, o := range u.has[name] {
		u.tell.set(newest(o, u.has[name]))
		return
	}
	delete(u.has, name)
	u.tell.delete(gone)
}

// newest is the newest of several versions: this one, if no other is certainly newer.
func newest(o Object, versions map[string]Object) Object {
	for _, other := range versions {
		if order, err := resourceversion.CompareResourceVersion(other.GetResourceVersion(), o.GetResourceVersion()); err == nil && order > 0 {
			o = other
		}
	}
	return o
}
