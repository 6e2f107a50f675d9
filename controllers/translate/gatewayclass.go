package translate

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// supported is what this version serves, in the words of the Gateway API; sorted, as the status wants it.
var supported = []features.FeatureName{
	features.SupportGRPCRoute,
	features.SupportGRPCRouteNamedRouteRule,
	features.SupportGRPCRouteRequestHeaderModifier,
	features.SupportGateway,
	features.SupportGatewayAddressEmpty,
	features.SupportGatewayFrontendClientCertificateValidation,
	features.SupportGatewayFrontendClientCertificateValidationInsecureFallback,
	features.SupportGatewayHTTPListenerIsolation,
	features.SupportGatewayHTTPSListenerDetectMisdirectedRequests,
	features.SupportGatewayInfrastructure,
	features.SupportGatewayPort8080,
	features.SupportGatewayRouteHostnameIntersectionPrecedence,
	features.SupportGatewayStaticAddresses,
	features.SupportHTTPRoute,
	features.SupportHTTPRoute303RedirectStatusCode,
	features.SupportHTTPRoute307RedirectStatusCode,
	features.SupportHTTPRoute308RedirectStatusCode,
	features.SupportHTTPRouteBackendProtocolH2C,
	features.SupportHTTPRouteBackendProtocolWebSocket,
	features.SupportHTTPRouteBackendRequestHeaderModification,
	features.SupportHTTPRouteBackendTimeout,
	features.SupportHTTPRouteBackendURLRewrite,
	features.SupportHTTPRouteCORS,
	features.SupportHTTPRouteHostRewrite,
	features.SupportHTTPRouteMethodMatching,
	features.SupportHTTPRouteNamedRouteRule,
	features.SupportHTTPRouteParentRefPort,
	features.SupportHTTPRoutePathRedirect,
	features.SupportHTTPRoutePathRewrite,
	features.SupportHTTPRoutePortRedirect,
	features.SupportHTTPRouteQueryParamMatching,
	features.SupportHTTPRouteRequestMirror,
	features.SupportHTTPRouteRequestMultipleMirrors,
	features.SupportHTTPRouteRequestPercentageMirror,
	features.SupportHTTPRouteRequestTimeout,
	features.SupportHTTPRouteResponseHeaderModification,
	features.SupportHTTPRouteRetryCodes,
	features.SupportHTTPRouteRetryConnectionError,
	features.SupportHTTPRouteSchemeRedirect,
	features.SupportReferenceGrant,
}

// supportedVersions are the versions of the Gateway API's CRDs that this version was built for: their minor releases.
var supportedVersions = []string{"v1.6", "v1.7"}

// classNode is a GatewayClass that names our controller.
type classNode struct {
	object  *gwv1.GatewayClass
	problem *problem // why it is not accepted
}

func (g *graph) addClasses() {
	for _, c := range byAge(g.in.Objects.GatewayClasses) {
		if c.Spec.ControllerName != v1alpha1.ControllerName {
			continue
		}
		n := &classNode{object: c}
		if p := c.Spec.ParametersRef; p != nil {
			n.problem = wrong("spec.parametersRef", gwv1.GatewayClassReasonInvalidParameters,
				"this version of Gatehouse takes no parameters (%s %s); remove the reference", p.Kind, p.Name)
		}
		g.classes = append(g.classes, n)
	}
}

// class returns the class of that name if it is ours, else nil.
func (g *graph) class(name string) *classNode {
	for _, c := range g.classes {
		if c.object.Name == name {
			return c
		}
	}
	return nil
}
