package v1alpha1

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

func TestASchemeKnowsEachKindAndItsList(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, obj := range []runtime.Object{&AuthPolicy{}, &AuthPolicyList{}, &RateLimitPolicy{}, &RateLimitPolicyList{}} {
		gvks, _, err := scheme.ObjectKinds(obj)
		if err != nil || len(gvks) != 1 || gvks[0].GroupVersion() != GroupVersion {
			t.Errorf("%T is %v: %v", obj, gvks, err)
		}
	}
}

func TestACopySharesNothing(t *testing.T) {
	five := int32(5)
	policy := &RateLimitPolicy{Spec: RateLimitPolicySpec{Limits: []RateLimit{{Name: "a", Key: []KeyExpression{"x"}, Concurrency: &five}}}}
	other := policy.DeepCopy()
	other.Spec.Limits[0].Key[0], *other.Spec.Limits[0].Concurrency = "y", 6
	if policy.Spec.Limits[0].Key[0] != "x" || *policy.Spec.Limits[0].Concurrency != 5 {
		t.Errorf("changing a copy changed the original: %v", policy.Spec)
	}
}
