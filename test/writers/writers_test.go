// Package writers holds no code but tests: what Gatehouse writes into a cluster (Services, the record of pod ports, Leases, statuses) is
// written into a real API server. There are no controllers and no nodes, so the tests play those: what a load balancer gives, which pods
// are ready.
package writers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/hack/kube"
)

// TestWritersAgainstARealAPIServer starts one API server for all; each part has namespaces of its own.
func TestWritersAgainstARealAPIServer(t *testing.T) {
	s := newServer(t)
	for name, part := range map[string]func(*testing.T, *server){
		"AServiceIsMadeChangedRepairedAndRemoved":                   serviceLives,
		"AServiceCanBecomeOneOfAnotherType":                         serviceChangesType,
		"ServicesGoWhenTheExposureBecomesHostAndComeBackAsTheyWere": exposureChanges,
		"NamesThatAreAlikeDoNotCollideAndLongOnesFit":               namesFit,
		"AQuotaConcernsOneGatewayAndIsToldInTheAPIServersWords":     quotaIsLocal,
		"AnAliasThatIsRefusedIsARemarkAndTrafficGoesOn":             aliasIsRefused,
		"WhatSomebodyElseMadeIsNotTouched":                          namesAreTaken,
		"AServiceIsNotRemovedWhileTheAPIServerKnowsTheGateway":      gatewayIsThere,
		"TwoLeadersNeverGiveOnePodPortTwice":                        leadersRace,
		"ARecordThatIsDeletedIsMadeAgain":                           recordIsMadeAgain,
		"WithoutItsOwnerNothingIsMade":                              ownerIsGone,
		"AReplicasLeaseIsOneThatTheAPIServerTakes":                  leaseIsTaken,
		"KeysAreMadeOnceAndRotateSoThatReplicasUnderstandEachOther": keysRotate,
		"KeysThatSomebodyElseWroteAreNotTouched":                    keysAreTheirs,
		"EveryKindGetsItsStatus":                                    everyKind,
		"WhatOthersWroteStaysByteForByte":                           foreignStays,
		"TwoWhoWriteOneStatusLoseNothing":                           writersRace,
		"StatusesThatSayTheSameAreNotWritten":                       nothingToWrite,
		"AStatusOfAnEarlierObjectOfThatNameIsNotWrittenToANewOne":   earlierObject,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part(t, s)
		})
	}
}

// server is an API server with the CRDs.
type server struct {
	client.WithWatch
	spaces atomic.Int32
}

func newServer(t *testing.T) *server {
	control := kube.ForTest(t)
	config := &rest.Config{Host: control.Host, BearerToken: control.Token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: control.CA}}
	scheme, err := controllers.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	if s.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatalf("where is the Gateway API module? %v", err)
	}
	crds := filepath.Join(strings.TrimSpace(string(out)), "config/crd/standard/gateway.networking.k8s.io_")
	s.addCRDs(t, crds+"gatewayclasses.yaml", crds+"gateways.yaml", crds+"httproutes.yaml", crds+"grpcroutes.yaml", crds+"backendtlspolicies.yaml",
		"../../config/crd/gatehouse.dev_ratelimitpolicies.yaml")
	s.create(t, &gwv1.GatewayClass{ObjectMeta: named("", "gatehouse"), Spec: gwv1.GatewayClassSpec{ControllerName: "gatehouse.dev/gateway-controller"}})
	return s
}

func (s *server) addCRDs(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(text, crd); err != nil {
			t.Fatal(err)
		}
		s.create(t, crd)
		eventually(t, crd.Name+" is served", func() bool {
			s.get(t, crd)
			for _, c := range crd.Status.Conditions {
				if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
					return true
				}
			}
			return false
		})
	}
}

// space makes a namespace that nobody else uses.
func (s *server) space(t *testing.T, name string) string {
	t.Helper()
	name = fmt.Sprintf("%s%d", name, s.spaces.Add(1))
	s.create(t, &corev1.Namespace{ObjectMeta: named("", name)})
	return name
}

func (s *server) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := s.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (s *server) get(t *testing.T, o client.Object) {
	t.Helper()
	if err := s.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatalf("get %T %s: %v", o, o.GetName(), err)
	}
}

// change reads an object, changes it and writes it, until nobody else did meanwhile.
func change[T client.Object](t *testing.T, s *server, o T, how func(T), write func(context.Context, client.Object) error) {
	t.Helper()
	for {
		s.get(t, o)
		how(o)
		err := write(t.Context(), o)
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			t.Fatalf("write %T %s: %v", o, o.GetName(), err)
		}
	}
}

func (s *server) update(ctx context.Context, o client.Object) error { return s.Update(ctx, o) }
func (s *server) updateStatus(ctx context.Context, o client.Object) error {
	return s.Status().Update(ctx, o)
}

func (s *server) remove(t *testing.T, o client.Object) {
	t.Helper()
	if err := s.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if t.Context().Err() != nil || time.Now().After(deadline) {
			t.Fatalf("it never happened that %s", what)
		}
	}
}
