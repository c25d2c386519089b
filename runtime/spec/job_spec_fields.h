// The fields of each spec, named once. Private to runtime/spec.
#pragma once

#include "runtime/spec/fields.h"

namespace lepton::spec {
// `kind` decides which of the kinds' own fields are visited; nullopt visits all of them (schema).
void Visit(FieldVisitor& v, JobSpec& s, std::optional<JobKind> kind);
void Visit(FieldVisitor& v, DeploymentSpec& s);
}  // namespace lepton::spec
