package infra

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// errInTheWay is a Service that has the name that ours needs.
var errInTheWay = errors.New("is in the way")

// do does a job; nil: it is done, or the term is over. What cannot be done is told to the Gateway in the API server's words, unless nobody
// but the API server is to blame.
func (l *leading) do(ctx context.Context, j job) *failure {
	err, what, f := error(nil), "", &failure{job: j}
	if j.remove != nil {
		what, err = "cannot remove a Service that no Gateway needs any more", l.remove(ctx, j.remove)
	}
	if j.task.Service != nil {
		what, err = "cannot make the Service of the Gateway; what is bound keeps serving", l.put(ctx, j.task.Service, j.task)
		f.unprovided = told(err)
	}
	if j.task.Alias != nil && err == nil {
		what, err = "cannot make the alias of the Gateway's Service", l.put(ctx, j.task.Alias, j.task)
		if why := told(err); why != "" {
			f.remark = fmt.Sprintf("no alias in the Gateway's namespace (Service %s): %s", j.task.Alias.Name, why)
		}
	}
	if err == nil || ctx.Err() != nil {
		return nil
	}
	l.options.Log.Error(err, what, "gateway", j.gateway.String())
	return f
}

// put makes a Service as it should be. It looks at what is there first: what somebody else made under that name is not touched.
func (l *leading) put(ctx context.Context, want *corev1.Service, t Task) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	have := &corev1.Service{}
	err := l.options.Client.Get(ctx, client.ObjectKeyFromObject(want), have)
	if apierrors.IsNotFound(err) {
		// Without force: should somebody make one of that name just now, it is a conflict.
		return l.apply(ctx, want, "")
	}
	if err != nil {
		return err
	}
	if uidOf(have) != t.UID || !ownedBy(have, want.OwnerReferences[0].UID) {
		//lint:ignore ST1005 a Service is a kind, and kinds are written so
		return fmt.Errorf("Service %s/%s, which is not this Gateway's, %w; delete it, or give the Gateway another name", have.Namespace, have.Name, errInTheWay)
	}
	if have.DeletionTimestamp != nil || !differs(want, have) {
		return nil
	}
	return l.apply(ctx, want, string(have.UID), client.ForceOwnership)
}

// apply applies our fields alone; the Service is the one with that UID, or new.
func (l *leading) apply(ctx context.Context, want *corev1.Service, uid string, opts ...client.ApplyOption) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return err
	}
	delete(fields, "status")
	u := &unstructured.Unstructured{Object: fields}
	u.SetAPIVersion("v1")
	u.SetKind("Service")
	if uid != "" {
		fields["metadata"].(map[string]any)["uid"] = uid
	}
	delete(fields["metadata"].(map[string]any), "creationTimestamp")
	return l.options.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), append(opts, members.Manager)...)
}

// told is an error in the words of the API server, if it is about what was asked of it; "" if it was not reached, or has too much to do.
func told(err error) string {
	if errors.Is(err, errInTheWay) {
		return err.Error()
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || apierrors.IsConflict(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsUnauthorized(err) {
		return ""
	}
	return status.Status().Message
}

// remove deletes a Service whose Gateway is gone, as far as we see. A load balancer that is deleted by mistake has another address
// afterwards, so the API server is asked once more. Where listeners are on the nodes, no Gateway needs a Service, whether it is gone or not.
func (l *leading) remove(ctx context.Context, s *corev1.Service) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	why := "exposure is host"
	if !l.options.Host {
		why = "its Gateway is gone"
		if gone, err := l.gone(ctx, s); err != nil || !gone {
			return err
		}
	}
	err := l.options.Client.Delete(ctx, s.DeepCopy(), client.Preconditions{UID: &s.UID})
	if err == nil {
		l.options.Log.Info("Service removed", "why", why, "service", s.Namespace+"/"+s.Name, "gateway", s.Annotations[gatewayAnnotation])
	}
	return client.IgnoreNotFound(err)
}

// gone reports whether the Gateway of a Service is not there any more, or is another controller's by now.
func (l *leading) gone(ctx context.Context, s *corev1.Service) (bool, error) {
	name, ok := gatewayOf(s)
	if !ok {
		return true, nil // it has our labels and our owner; somebody took away the annotation
	}
	gateway := &gwv1.Gateway{}
	err := l.options.Client.Get(ctx, client.ObjectKey{Namespace: name.Namespace, Name: name.Name}, gateway)
	if isAbsent(err, name.Name) || err == nil && gateway.UID != uidOf(s) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	class := &gwv1.GatewayClass{}
	if err := l.options.Client.Get(ctx, client.ObjectKey{Name: string(gateway.Spec.GatewayClassName)}, class); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return class.Spec.ControllerName != v1alpha1.ControllerName, nil
}

// gatewayOf is the name of the Gateway that a Service was made for.
func gatewayOf(s *corev1.Service) (name snapshot.Name, ok bool) {
	name.Namespace, name.Name, ok = strings.Cut(s.Annotations[gatewayAnnotation], "/")
	return name, ok
}

// isAbsent reports whether the API server says of the object itself that it is not there, and not that it does not know its kind.
func isAbsent(err error, name string) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	return d != nil && d.Name == name && len(d.Causes) == 0
}

// writeRecord stores the record, if nobody else did in the meantime. Else it reads what is stored, and the next plan is made of that.
func (i *Infra) writeRecord(ctx context.Context, stored *corev1.ConfigMap, r Record, owner metav1.OwnerReference) (written bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: i.options.Namespace, Name: i.options.Record, OwnerReferences: []metav1.OwnerReference{owner},
	}}
	write := func() error { return i.options.Client.Create(ctx, c, members.Manager) }
	if stored != nil {
		c = stored.DeepCopy()
		write = func() error { return i.options.Client.Update(ctx, c, members.Manager) }
	}
	c.Data = r.text()
	err = write()
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return false, i.readRecord(ctx, client.ObjectKeyFromObject(c))
	}
	if err != nil {
		return false, err
	}
	i.Set(c)
	return true, nil
}

// readRecord gets what is stored. If that is nothing, the next plan has it made.
func (i *Infra) readRecord(ctx context.Context, key client.ObjectKey) error {
	c := &corev1.ConfigMap{}
	err := i.options.Client.Get(ctx, key, c)
	switch {
	case apierrors.IsNotFound(err):
		i.mu.Lock()
		i.stored = nil
		i.mu.Unlock()
	case err != nil:
		return err
	default:
		i.Set(c)
	}
	i.rouse()
	return nil
}
