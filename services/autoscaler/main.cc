#include "libs/app/service_main.h"
#include "services/autoscaler/autoscaler.h"

int main(int argc, char** argv) {
  return switchyard::RunServiceMain(
      argc, argv,
      {.name = "switchyard-autoscaler",
       .summary = "decides which shard holds which expert and tells shards and routers",
       .make = switchyard::Autoscaler::Make});
}
