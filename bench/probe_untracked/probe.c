// usage: probe MODELROOT n_items batch_rows workers  load seconds [backend] 
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/log.h"
#include "service/pipeline.h"
#include "service/servable.h"
static int cmp(const void*a,const void*b){double x=*(double*)a,y=*(double*)b;return x<y?-1:x>y;}
typedef struct { hr_rank_call call; hr_arena*arena; uint64_t intended, end; int code; } C;
static atomic_uint n_done;
static void done(hr_rank_call*c){C*x=(C*)c;x->end=hr_clock_ns();x->code=c->error.code;hr_arena_reset(x->arena);hr_arena_destroy(x->arena);x->arena=NULL;atomic_fetch_add(&n_done,1);}
static Homerank__V1__RankRequest*req(hr_arena*a,uint32_t n,uint32_t seed){Homerank__V1__RankRequest*r=hr_arena_calloc(a,1,sizeof*r);homerank__v1__rank_request__init(r);r->user_id=hr_arena_strndup(a,"7",1);r->item_ids=hr_arena_calloc(a,n,sizeof*r->item_ids);r->n_item_ids=n;for(uint32_t i=0;i<n;i++){char id[16];int k=snprintf(id,16,"%u",seed*31+i);r->item_ids[i]=hr_arena_strndup(a,id,k);}return r;}
static double u(void){return (rand()+1.0)/(RAND_MAX+2.0);}
int main(int c,char**v){
  const char*root=v[1];uint32_t n=atoi(v[2]),b=atoi(v[3]),w=atoi(v[4]);double load=atof(v[5]),secs=atof(v[6]);
  uint64_t maxq= c>8? (uint64_t)atoll(v[8])*1000000:0;
  hr_store*store;hr_repository*repo;hr_pipeline*p;hr_error e;
  hr_store_open("none:",&hr_store_defaults,&store,&e);
  hr_repository_options ro={.model={.backend=c>7?v[7]:"auto",.n_workers=w},.prepare=hr_servable_prepare};
  if(hr_repository_open(root,&ro,&repo,&e)){puts(e.message);return 1;}
  hr_pipeline_options po={.n_workers=w,.max_items=10000,.max_id_nbytes=64,.max_queued_calls=4000,.max_queued_items=10000000,.max_batch_rows=b,.max_queue_ns=UINT64_MAX};
  if(hr_pipeline_create(&po,repo,store,&p,&e)){puts(e.message);return 1;}
  // saturation: closed loop with 8 in flight
  double rate;
  {
    int N=(int)(secs>10?60:40); if(n<50)N=3000; C*cs=calloc(N,sizeof*cs);atomic_store(&n_done,0);uint64_t t0=0;int warm=N/5;
    uint64_t tw=0;
    for(int i=0;i<N;i++){ while(i-(int)atomic_load(&n_done)>=(n<50?256:8)) sched_yield(); if(i==warm){tw=hr_clock_ns();t0=atomic_load(&n_done);}
      cs[i].arena=hr_arena_create(64<<20);cs[i].call=(hr_rank_call){.request=req(cs[i].arena,n,i),.arena=cs[i].arena,.received_ns=hr_clock_ns(),.deadline_ns=UINT64_MAX,.done=done};hr_pipeline_submit(p,&cs[i].call);}
    while(atomic_load(&n_done)<(unsigned)N) usleep(100);
    uint64_t te=hr_clock_ns(); rate=(N-t0)/((te-tw)/1e9);
    printf("saturation %.1f calls/s, %.0f rows/s, D=%.2f ms\n",rate,rate*n,1e3*w/rate);
  }
  hr_pipeline_destroy(p); po.max_queue_ns=maxq; hr_pipeline_create(&po,repo,store,&p,&e);
  int N=(int)(rate*load*secs);C*cs=calloc(N,sizeof*cs);atomic_store(&n_done,0);
  double*arr=malloc(N*sizeof(double));double t=0;srand(1);for(int i=0;i<N;i++){t-=log(u())/(rate*load);arr[i]=t;}
  uint64_t t0=hr_clock_ns()+10000000;double worst=0,refmax=0;
  double*ref=malloc(N*sizeof(double));int nref=0;
  for(int i=0;i<N;i++){uint64_t at=t0+(uint64_t)(arr[i]*1e9);
    cs[i].arena=hr_arena_create(64<<20);Homerank__V1__RankRequest*r=req(cs[i].arena,n,i);
    struct timespec ts={at/1000000000u,at%1000000000u};clock_nanosleep(CLOCK_MONOTONIC,TIMER_ABSTIME,&ts,NULL);
    uint64_t now=hr_clock_ns();if(now>at&&(now-at)/1e6>worst)worst=(now-at)/1e6;cs[i].intended=at;
    cs[i].call=(hr_rank_call){.request=r,.arena=cs[i].arena,.received_ns=now,.deadline_ns=UINT64_MAX,.done=done};hr_pipeline_submit(p,&cs[i].call);
    (void)refmax;}
  while(atomic_load(&n_done)<(unsigned)N) usleep(100);
  double*l=malloc(N*sizeof(double));int k=0;for(int i=0;i<N;i++){double ms=(cs[i].end-cs[i].intended)/1e6;if(cs[i].code==0)l[k++]=ms;else ref[nref++]=ms;}
  qsort(l,k,8,cmp);qsort(ref,nref,8,cmp);
  printf("load %.2f: %d calls, ok %d refused %d; p50 %.2f p90 %.2f p99 %.2f max %.2f ms; generator late max %.2f; refused p99 %.2f\n",load,N,k,nref,l[k/2],l[k*9/10],l[k*99/100],l[k-1],worst,nref?ref[nref*99/100]:0.);
  // ideal M/D/c with D=w/rate
  double D=1e3*w/rate,fr[64]={0};for(int i=0;i<N;i++){int m=0;for(uint32_t j=1;j<w;j++)if(fr[j]<fr[m])m=j;double a=arr[i]*1e3,s=a>fr[m]?a:fr[m];fr[m]=s+D;l[i]=fr[m]-a;}
  qsort(l,N,8,cmp);printf("ideal M/D/%u same arrivals: p50 %.2f p90 %.2f p99 %.2f\n",w,l[N/2],l[N*9/10],l[N*99/100]);
  // long ideal
  {int M=400000;double*q=malloc(M*8);double a=0,f2[64]={0};double mean=1e3/(rate*load);for(int i=0;i<M;i++){a-=log(u())*mean;int m=0;for(uint32_t j=1;j<w;j++)if(f2[j]<f2[m])m=j;double s=a>f2[m]?a:f2[m];f2[m]=s+D;q[i]=f2[m]-a;}if(load<1){qsort(q,M,8,cmp);printf("ideal M/D/%u long: p50 %.2f p99 %.2f\n",w,q[M/2],q[M*99/100]);}}
  hr_pipeline_destroy(p);hr_repository_close(repo);hr_store_close(store);return 0;}
