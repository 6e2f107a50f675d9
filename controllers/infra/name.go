package infra

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// What is on each Service of ours and on each alias. UIDLabel marks them: what does not have it is never touched.
const (
	UIDLabel          = v1alpha1.GroupName + "/gateway-uid"
	gatewayLabel      = gwv1.GatewayNameLabelKey
	classLabel        = "gateway.networking.k8s.io/gateway-class-name" // GEP-1762
	gatewayAnnotation = v1alpha1.GroupName + "/gateway"                // namespace/name
	appliedAnnotation = v1alpha1.GroupName + "/applied"                // a hash of all that was applied: so we see what is to be taken away again
)

const (
	maxLabel = 63 // a name of a Service (RFC 1035), and a label's value
	hashed   = 8  // characters of a hash in a name
)

// serviceName is that of a Gateway's Service in our namespace. The hash tells a-b/c from a/b-c.
func serviceName(gateway snapshot.Name) string {
	text := dashed(gateway.Namespace + "-" + gateway.Name)
	return cut(text, maxLabel-1-hashed) + "-" + hash(gateway.Namespace+"/"+gateway.Name)
}

// aliasName is that of the alias in the Gateway's own namespace: with a hash only where the Gateway's name could not be used as it is.
func aliasName(gateway string) string {
	const suffix = "-gatehouse"
	if name := dashed(gateway) + suffix; name == gateway+suffix && len(name) <= maxLabel {
		return name
	}
	return cut(dashed(gateway), maxLabel-len(suffix)-1-hashed) + suffix + "-" + hash(gateway)
}

// labelValue is a name of any length as the value of a label.
func labelValue(name string) string {
	if len(name) <= maxLabel {
		return name
	}
	return cut(name, maxLabel-1-hashed) + "-" + hash(name)
}

// dashed makes a name with dots, which may begin with a digit, one that RFC 1035 admits but for its length.
func dashed(name string) string {
	name = strings.ReplaceAll(name, ".", "-")
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		name = "g" + name
	}
	return name
}

// cut shortens a name, and leaves no dash or dot at its end.
func cut(name string, length int) string {
	return strings.TrimRight(name[:min(len(name), length)], "-.")
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:hashed]
}
