package translate_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

func TestAFeatureIsClaimedOnlyWhereItsKindIsThere(t *testing.T) {
	class := &gwv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: "gatehouse"}, Spec: gwv1.GatewayClassSpec{ControllerName: v1alpha1.ControllerName},
	}
	result := translate.Build(translate.Input{Objects: translate.Objects{GatewayClasses: []*gwv1.GatewayClass{class}}})
	claims := func(crds map[string]string, prefix string) bool {
		facts := translate.AllBound(result.Snapshot)
		facts.CRDs = crds
		for _, s := range result.Statuses(facts) {
			for _, f := range s.Value.(gwv1.GatewayClassStatus).SupportedFeatures {
				if strings.HasPrefix(string(f.Name), prefix) {
					return true
				}
			}
		}
		return false
	}
	http := map[string]string{"httproutes.gateway.networking.k8s.io": "v1.7.0", "gateways.gateway.networking.k8s.io": "v1.7.0"}
	if !claims(nil, "GRPCRoute") || claims(http, "GRPCRoute") || !claims(http, "HTTPRoute") || !claims(http, "Gateway") {
		t.Error("features are claimed of kinds that are not there, or not claimed of those that are")
	}
}
