package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Files are the objects that files hold, as the loop takes them.
func Files(r source.Result) []Object {
	objects := make([]Object, len(r.Objects))
	for i, o := range r.Objects {
		objects[i] = o
	}
	return objects
}

// Follow hands the loop what files say whenever they change, until ctx ends. Before that it calls seen, which may report the problems
// of the files. It returns an error if the files cannot be watched.
func (l *Loop) Follow(ctx context.Context, files *source.Loader, seen func(source.Result)) error {
	return files.Watch(ctx, func(r source.Result) {
		seen(r)
		l.Replace(Files(r))
	})
}

// Sorted puts objects into the lists that Build looks at. EndpointSlices are none of its business.
func Sorted(objects []Object) (sorted translate.Objects) {
	for _, o := range objects {
		if _, short := o.(*discoveryv1.EndpointSlice); !short {
			sorted.Add(o)
		}
	}
	return sorted
}

// Complaints are what statuses say is wrong, and references to Gateways and classes that no file has, with the place in the files, in the order of the files' names and lines.
func Complaints(statuses []translate.Status, r source.Result) (all []source.Problem) {
	type named struct {
		kind string
		name snapshot.Name
	}
	objects := map[named]source.Object{}
	for _, o := range r.Objects {
		objects[named{o.GetObjectKind().GroupVersionKind().Kind, identityOf(o).name}] = o
	}
	for _, s := range statuses {
		object := s.Kind + " " + s.Name.String()
		if s.Name.Namespace == "" {
			object = s.Kind + " " + s.Name.Name
		}
		for _, p := range s.Problems {
			c := source.Problem{Object: object, Field: p.Field, Message: p.Message}
			if o := objects[named{s.Kind, s.Name}]; o != nil {
				c.File, c.Line = r.Where(o, p.Field)
			}
			all = append(all, c)
		}
	}
	all = append(all, orphans(r)...)
	slices.SortStableFunc(all, func(x, y source.Problem) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line))
	})
	return all
}

// orphans are references that a cluster would leave to somebody else, and that nobody serves where files are all that there is: parents
// that are not there, and classes.
func orphans(r source.Result) (all []source.Problem) {
	gateways, classes := map[snapshot.Name]bool{}, map[string]bool{}
	for _, o := range r.Objects {
		switch v := o.(type) {
		case *gwv1.Gateway:
			gateways[identityOf(v).name] = true
		case *gwv1.GatewayClass:
			classes[v.Name] = true
		}
	}
	complain := func(o source.Object, field, message string) {
		p := source.Problem{Object: o.GetObjectKind().GroupVersionKind().Kind + " " + identityOf(o).name.String(), Field: field, Message: message}
		p.File, p.Line = r.Where(o, field)
		all = append(all, p)
	}
	for _, o := range r.Objects {
		var parents []gwv1.ParentReference
		switch v := o.(type) {
		case *gwv1.Gateway:
			if class := string(v.Spec.GatewayClassName); !classes[class] {
				complain(v, "spec.gatewayClassName", "no file has a GatewayClass "+class+", so nobody serves this Gateway")
			}
		case *gwv1.HTTPRoute:
			parents = v.Spec.ParentRefs
		case *gwv1.GRPCRoute:
			parents = v.Spec.ParentRefs
		}
		for i, p := range parents {
			name := snapshot.Name{Namespace: o.GetNamespace(), Name: string(p.Name)}
			if p.Namespace != nil {
				name.Namespace = string(*p.Namespace)
			}
			if p.Kind != nil && *p.Kind == "Gateway" && !gateways[name] {
				complain(o, fmt.Sprintf("spec.parentRefs[%d].name", i), "no file has a Gateway "+name.String()+", so nobody serves the route there")
			}
		}
	}
	return all
}
