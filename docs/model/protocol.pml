/*
 * The protocol by which rbd-provisioner creates and removes images, for one image name.
 * README.md describes the scope, the properties, the configurations and the mutations.
 *
 * Each atomic block below is one step: one request that the API server or Ceph executes
 * as a whole, or one decision from values that were read before. Between two steps a
 * process can stop for any time, because every other process can take any number of
 * steps. Spin explores all orders.
 */

/* Configurations: what the leaders do, and how often users delete the claim and change the
 * reclaim policy. One is chosen with -D. */
#if defined(PLAIN)
#define PROVISION_PLAIN
#define DELETE_VOLUMES
#define COLLECT_ORPHANS
#define CLAIM_DELETIONS 1
#define POLICY_CHANGES  0
#elif defined(CLONES)
#define PROVISION_CLONE
#define CLAIM_DELETIONS 0
#define POLICY_CHANGES  0
#elif defined(DELETION)
#define DELETE_VOLUMES
#define CLAIM_DELETIONS 1
#define POLICY_CHANGES  3
#elif defined(SHARED)
#define COLLECT_ORPHANS
#define CLAIM_DELETIONS 0
#define POLICY_CHANGES  0
#endif

/* Properties. -DONLY=<property> checks one of them, the default is all. */
#define DATA     1
#define NAME     2
#define WRITER   3
#define LEAK     4
#define SCENARIO 5  /* none: finds a trace to the scenario SEEN */
#if !defined(ONLY)
#define CHECK(property, condition)  assert(condition)
#else
#define CHECK(property, condition)  assert(ONLY != property || (condition))
#endif

/* Bounds. */
#ifndef LEADERS
#define LEADERS  2  /* provisioner processes; process n takes the lease as the n-th */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 2  /* how often leaders stop waiting for an operation that goes on */
#endif
#ifndef ERRORS
#define ERRORS   1  /* how often librbd's clone fails without a cause in the model */
#endif
#define IDS      5  /* image ids; the model asserts that they suffice */

#define BIT(leader) (1 << (leader))

/* ---- Lease (an object in the API server) ---- */

byte term;      /* how often the lease was taken; ghost state, it numbers the leaders */
byte holder;    /* the leader that holds the lease, 0 if it was given back */
byte recorded;  /* set of the Ceph clients that the lease names */

/* ---- Ceph ---- */

#define SOME(condition) \
  (condition(1) || condition(2) || condition(3) || condition(4) || condition(5))

mtype = { NONE, OURS, SOURCE, FOREIGN };  /* the record: whose image it is */

typedef Image {
  mtype record = NONE;  /* SOURCE: a clone bears its source's metadata until it has its own */
  bit sized;            /* has its final size; a size of 0 means no data */
  bit parent;           /* is attached to its source */
  bit written;          /* a pod has written data */
  bit mark;             /* metadata: we moved it to the trash */
  bit trashed;          /* is in the trash */
  byte handles;         /* another cluster's open handles; Ceph lists them as watchers */
};
Image image[IDS + 1];   /* by id; 0 is no image */
byte named;             /* id of the image that has the name, 0 if none */
byte made;              /* ids that were used */
byte blocked;           /* set of the clients on the blocklist */
bit hasSnapshot;        /* the source has the snapshot that is named after the clone */

/* One operation per leader is under way at a time: the store refuses a second one for the
 * same image (rbdutil/librbd, operation.go and guard.go). The client executes it, also after the leader has
 * stopped waiting for it. */
mtype = { IDLE, CREATE, SNAPSHOT, CLONE, COMPLETE, MOVE, RESTORE, PURGE };
typedef Operation {
  mtype kind = IDLE;
  byte id;              /* precondition: the image's id, */
  mtype record = NONE;  /* its record, */
  bit sized;            /* its size, */
  bit unwritten;        /* and that it was never written to */
  bit ok;               /* result */
};
Operation operation[LEADERS + 1];
bit crashed[LEADERS + 1];  /* the process is gone: its client may or may not take another step */
bit denied[LEADERS + 1];   /* the process has got ESHUTDOWN; it will exit */

/* ---- API server ---- */

mtype = { ABSENT, SAVED, BOUND, RELEASED };
bit claim;
mtype volume = ABSENT;
bit retain;             /* reclaim policy Retain, else Delete */
byte version;           /* the volume's resource version */
mtype cachedVolume = ABSENT;  /* the leaders' informer cache; it lags behind */
bit cachedRetain;
byte cachedVersion;
bit second;             /* configuration DELETION: another PV, with policy Retain, names the image */
bit foreignBound;       /* configuration SHARED: the other cluster's claim is bound */

#define DELETABLE (volume == RELEASED && !retain)
#define LIVING    (volume != ABSENT && !DELETABLE)

byte timeouts;          /* used of TIMEOUTS */
byte errors;            /* used of ERRORS */

/* ---- Ghost state, for the properties only ---- */

byte data;              /* the image that a pod wrote to, 0 if none */
bit keep;               /* that data must not be lost */
byte lastWriter;        /* the last leader that changed Ceph */
byte lived;             /* set of leaders; the volume was living since their attempt to delete began */
bit restored;           /* an image was restored from the trash */

#define MAY_LOSE(i)   (!(image[i].written && keep))

#include "ceph.pml"
#include "leader.pml"
#include "cluster.pml"
