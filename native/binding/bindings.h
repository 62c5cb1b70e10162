// What each file of the binding adds to the module.
#pragma once

#include <napi.h>

#include "engine/device.h"

namespace understudy {

void defineCompress(Napi::Env env, Napi::Object exports);
void defineDevice(Napi::Env env, Napi::Object exports);
void defineEngine(Napi::Env env, Napi::Object exports);
void defineTracker(Napi::Env env, Napi::Object exports);

Napi::Object geometryObject(Napi::Env env, const Geometry& geometry);

}  // namespace understudy
