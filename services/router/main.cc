#include "libs/app/service_main.h"
#include "services/router/router.h"

int main(int argc, char** argv) {
  return switchyard::RunServiceMain(
      argc, argv,
      {.name = "switchyard-router",
       .summary = "schedules sequences, runs attention and sampling, sends rows to expert shards",
       .make = switchyard::Router::Make});
}
