package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func defaultService(s *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	if s.Spec.SessionAffinity == "" {
		s.Spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if s.Spec.InternalTrafficPolicy == nil && s.Spec.Type != corev1.ServiceTypeExternalName {
		cluster := corev1.ServiceInternalTrafficPolicyCluster
		s.Spec.InternalTrafficPolicy = &cluster
	}
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == intstr.FromInt32(0) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
}

var serviceTypes = []corev1.ServiceType{
	corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort,
}

func checkService(s *corev1.Service) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if !slices.Contains(serviceTypes, s.Spec.Type) {
		errs = append(errs, field.NotSupported(spec.Child("type"), s.Spec.Type, serviceTypes))
	}
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		name := strings.TrimSuffix(s.Spec.ExternalName, ".")
		if name == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			errs = append(errs, invalid(spec.Child("externalName"), name, validation.IsDNS1123Subdomain(name))...)
		}
	case headless && s.Spec.Type != corev1.ServiceTypeClusterIP:
		errs = append(errs, field.Invalid(spec.Child("clusterIP"), s.Spec.ClusterIP, fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
	case len(s.Spec.Ports) == 0 && !headless:
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	if s.Spec.ClusterIP != "" && !headless {
		errs = append(errs, validation.IsValidIP(spec.Child("clusterIP"), s.Spec.ClusterIP)...)
	}
	return append(errs, checkServicePorts(s.Spec.Ports, spec.Child("ports"))...)
}

func checkServicePorts(ports []corev1.ServicePort, path *field.Path) (errs field.ErrorList) {
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	names, numbers := map[string]bool{}, map[number]bool{}
	for i, port := range ports {
		at := path.Index(i)
		switch {
		case port.Name == "" && len(ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), "each of several ports has a name"))
		case port.Name != "" && names[port.Name]:
			errs = append(errs, field.Duplicate(at.Child("name"), port.Name))
		case port.Name != "":
			errs = append(errs, invalid(at.Child("name"), port.Name, validation.IsDNS1123Label(port.Name))...)
		}
		if n := (number{port.Protocol, port.Port}); numbers[n] {
			errs = append(errs, field.Duplicate(at, fmt.Sprintf("%s %d", n.protocol, n.port)))
		}
		names[port.Name], numbers[number{port.Protocol, port.Port}] = true, true

		errs = append(errs, checkPortNumber(port.Port, at.Child("port"))...)
		errs = append(errs, checkProtocol(port.Protocol, at.Child("protocol"))...)
		errs = append(errs, checkAppProtocol(port.AppProtocol, at.Child("appProtocol"))...)
		if port.TargetPort.Type == intstr.String {
			errs = append(errs, invalid(at.Child("targetPort"), port.TargetPort.StrVal, validation.IsValidPortName(port.TargetPort.StrVal))...)
		} else {
			errs = append(errs, checkPortNumber(port.TargetPort.IntVal, at.Child("targetPort"))...)
		}
	}
	return errs
}

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		port := &s.Ports[i]
		if port.Name == nil {
			port.Name = new(string)
		}
		if port.Protocol == nil {
			tcp := corev1.ProtocolTCP
			port.Protocol = &tcp
		}
	}
}

// Kubernetes' own bounds (pkg/apis/discovery/validation).
const (
	maxEndpoints = 1000 // in an EndpointSlice
	maxAddresses = 100  // of an endpoint
)

var addressTypes = []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}

// checkEndpointSlice allows loopback and link-local addresses, which the API server refuses: without a cluster they are
// where backends run. It wants ports between 1 and 65535, which the API server does not look at.
func checkEndpointSlice(s *discoveryv1.EndpointSlice) (errs field.ErrorList) {
	switch {
	case s.AddressType == "":
		errs = append(errs, field.Required(field.NewPath("addressType"), "IPv4, IPv6 or FQDN"))
	case !slices.Contains(addressTypes, s.AddressType):
		errs = append(errs, field.NotSupported(field.NewPath("addressType"), s.AddressType, addressTypes))
	}
	if len(s.Endpoints) > maxEndpoints {
		errs = append(errs, field.TooMany(field.NewPath("endpoints"), len(s.Endpoints), maxEndpoints))
	}
	for i, endpoint := range s.Endpoints {
		path := field.NewPath("endpoints").Index(i)
		switch n := len(endpoint.Addresses); {
		case n == 0:
			errs = append(errs, field.Required(path.Child("addresses"), "must contain at least 1 address"))
		case n > maxAddresses:
			errs = append(errs, field.TooMany(path.Child("addresses"), n, maxAddresses))
		}
		for j, address := range endpoint.Addresses {
			errs = append(errs, checkAddress(address, s.AddressType, path.Child("addresses").Index(j))...)
		}
	}
	return append(errs, checkEndpointPorts(s.Ports)...)
}

func checkAddress(address string, t discoveryv1.AddressType, path *field.Path) field.ErrorList {
	if t == discoveryv1.AddressTypeFQDN {
		return validation.IsFullyQualifiedDomainName(path, address)
	}
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil || ip.Zone() != "":
		return field.ErrorList{field.Invalid(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")}
	case ip.IsUnspecified():
		return field.ErrorList{field.Invalid(path, address, "may not be unspecified ("+address+")")}
	case t == discoveryv1.AddressTypeIPv4 && !ip.Is4():
		return field.ErrorList{field.Invalid(path, address, "must be an IPv4 address")}
	case t == discoveryv1.AddressTypeIPv6 && !ip.Is6():
		return field.ErrorList{field.Invalid(path, address, "must be an IPv6 address")}
	}
	return nil
}

func checkEndpointPorts(ports []discoveryv1.EndpointPort) (errs field.ErrorList) {
	names := map[string]bool{}
	for i, port := range ports {
		at := field.NewPath("ports").Index(i)
		if *port.Name != "" {
			errs = append(errs, invalid(at.Child("name"), *port.Name, validation.IsDNS1123Label(*port.Name))...)
		}
		if names[*port.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), *port.Name))
		}
		names[*port.Name] = true
		if port.Port != nil {
			errs = append(errs, checkPortNumber(*port.Port, at.Child("port"))...)
		}
		errs = append(errs, checkProtocol(*port.Protocol, at.Child("protocol"))...)
		errs = append(errs, checkAppProtocol(port.AppProtocol, at.Child("appProtocol"))...)
	}
	return errs
}
