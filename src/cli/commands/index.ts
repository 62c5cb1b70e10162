/** All commands, in the order in which the help shows them. */
import type { CommandGroup } from '../command.ts';
import { agentGroup } from './agent.ts';
import { drillGroup } from './drill.ts';
import { ec2Group } from './ec2.ts';
import { failbackGroup } from './failback.ts';
import { failoverGroup } from './failover.ts';
import { imageGroup } from './image.ts';
import { jobGroup } from './job.ts';
import { planGroup } from './plan.ts';
import { pointGroup } from './point.ts';
import { repoGroup } from './repo.ts';
import { retentionGroup } from './retention.ts';
import { serverGroup } from './server.ts';
import { stagingGroup } from './staging.ts';

export const commandGroups: readonly CommandGroup[] = [
  stagingGroup,
  agentGroup,
  serverGroup,
  pointGroup,
  retentionGroup,
  imageGroup,
  drillGroup,
  failoverGroup,
  planGroup,
  failbackGroup,
  jobGroup,
  ec2Group,
  repoGroup,
];
