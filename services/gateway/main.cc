#include "libs/app/service_main.h"
#include "services/gateway/gateway.h"

int main(int argc, char** argv) {
  return switchyard::RunServiceMain(
      argc, argv,
      {.name = "switchyard-gateway",
       .summary = "serves the OpenAI-compatible API and talks to routers",
       .make = switchyard::Gateway::Make});
}
