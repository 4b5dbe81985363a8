#include "libs/app/service_main.h"
#include "services/expert-shard/expert_shard.h"

int main(int argc, char** argv) {
  return switchyard::RunServiceMain(
      argc, argv,
      {.name = "switchyard-expert-shard",
       .summary = "holds expert weights and computes the rows that routers send",
       .make = switchyard::ExpertShard::Make});
}
